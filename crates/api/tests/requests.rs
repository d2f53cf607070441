//! Clients other than the docker CLI leave out, null and empty whatever they like.

#![allow(clippy::unwrap_used)]

use ferry_api::container::Create;
use ferry_api::{container, exec, network, volume};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Every field of a request, found by writing out one that has them all, may be null.
fn takes_null_everywhere<T: DeserializeOwned + Serialize + Default + PartialEq + std::fmt::Debug>(full: &str) {
    let full: Value = serde_json::from_str(full).unwrap();
    let mut paths = Vec::new();
    objects(&full, &mut Vec::new(), &mut paths);
    assert!(!paths.is_empty());
    for path in paths {
        for drop in [true, false] {
            let mut request = full.clone();
            let (last, parents) = path.split_last().unwrap();
            let object = parents
                .iter()
                .fold(&mut request, |value, key| value.get_mut(key).unwrap())
                .as_object_mut()
                .unwrap();
            if drop {
                object.remove(last);
            } else {
                object.insert(last.clone(), Value::Null);
            }
            let read = serde_json::from_value::<T>(request);
            assert!(read.is_ok(), "{path:?}: {read:?}");
        }
    }
}

/// The paths of all keys, through objects only.
fn objects(value: &Value, at: &mut Vec<String>, paths: &mut Vec<Vec<String>>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        at.push(key.clone());
        paths.push(at.clone());
        objects(value, at, paths);
        at.pop();
    }
}

#[test]
fn every_field_of_a_create_request_takes_null_and_absence() {
    takes_null_everywhere::<Create>(include_str!("golden/request_create_full.json"));
    takes_null_everywhere::<Create>(include_str!("golden/request_create_ports.json"));
    takes_null_everywhere::<container::Update>(include_str!("golden/request_update.json"));
}

#[test]
fn other_requests_take_null_and_absence() {
    let full = |value: &dyn erased::Json| value.json();
    takes_null_everywhere::<exec::Create>(&full(&exec::Create::default()));
    takes_null_everywhere::<exec::Start>(&full(&exec::Start::default()));
    takes_null_everywhere::<network::Create>(&full(&network::Create::default()));
    takes_null_everywhere::<network::Connect>(&full(&network::Connect::default()));
    takes_null_everywhere::<network::Disconnect>(&full(&network::Disconnect::default()));
    assert_eq!(
        serde_json::from_str::<volume::Create>(r#"{"Name":null,"Driver":null,"Labels":null}"#).unwrap(),
        volume::Create::default()
    );
}

mod erased {
    pub trait Json {
        fn json(&self) -> String;
    }
    impl<T: serde::Serialize> Json for T {
        fn json(&self) -> String {
            serde_json::to_string(self).unwrap()
        }
    }
}

#[test]
fn an_empty_create_request_is_the_default_and_null_is_none() {
    assert_eq!(Create::parse(b"{}").unwrap(), Some(Create::default()));
    assert_eq!(Create::parse(b"null").unwrap(), None);
    assert!(Create::parse(b"").is_err());
    assert!(Create::parse(br#"{"Image":5}"#).is_err());
    assert!(Create::parse(br#"{"HostConfig":{"Memory":"x"}}"#).is_err());
    assert!(Create::parse(br#"{"HostConfig":{"Memory":1.5}}"#).is_err());
    assert!(Create::parse(br#"{"HostConfig":[]}"#).is_err());
}

#[test]
fn unknown_keys_are_ignored() {
    let read = Create::parse(br#"{"Image":"a","Nope":{"x":[1]},"HostConfig":{"Nope":1,"Memory":5}}"#)
        .unwrap()
        .unwrap();
    assert_eq!(
        (read.config.image.as_str(), read.host_config.unwrap().resources.memory),
        ("a", 5)
    );
}

#[test]
fn commands_may_be_one_string() {
    let read = Create::parse(br#"{"Cmd":"ls -l","Entrypoint":"","HostConfig":{"CapAdd":"ALL"}}"#)
        .unwrap()
        .unwrap();
    assert_eq!(read.config.cmd.unwrap().0, ["ls -l"]);
    assert_eq!(read.config.entrypoint.unwrap().0, [""]);
    assert_eq!(read.host_config.unwrap().cap_add.unwrap().0, ["ALL"]);
}

#[test]
fn ports_and_volumes_are_sets() {
    let read = Create::parse(br#"{"ExposedPorts":{"80/tcp":null,"81/tcp":{}},"Volumes":{"/a":{}},"HostConfig":{"PortBindings":{"80/tcp":null,"81/tcp":[{"HostPort":"1"}]}}}"#)
        .unwrap()
        .unwrap();
    assert_eq!(read.config.exposed_ports.len(), 2);
    assert_eq!(read.host_config.unwrap().port_bindings.unwrap()["80/tcp"], None);
}

#[test]
fn elements_may_be_null_too() {
    let read = Create::parse(br#"{"Labels":{"a":null},"Env":[null],"HostConfig":{"Devices":[null],"ConsoleSize":[1],"DeviceRequests":[{"Capabilities":[["a"],null]}]}}"#).unwrap().unwrap();
    assert_eq!(read.config.labels.unwrap()["a"], "");
    assert_eq!(read.config.env.unwrap(), [""]);
    let host = read.host_config.unwrap();
    assert_eq!((host.console_size, host.resources.devices.unwrap().len()), ([1, 0], 1));
}

#[test]
fn null_and_empty_lists_can_be_told_apart() {
    let read = Create::parse(br#"{"Env":[],"HostConfig":{"MaskedPaths":[],"ReadonlyPaths":null}}"#)
        .unwrap()
        .unwrap();
    let host = read.host_config.unwrap();
    assert_eq!(
        (read.config.env, host.masked_paths, host.readonly_paths),
        (Some(vec![]), Some(vec![]), None)
    );
}
