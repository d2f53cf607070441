//! Real answers of Docker Engine 28.5.2, and real requests of docker CLI 28.5.2, read into our types and written back:
//! the same values,
//! the same keys in the same order, the same nulls.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use ferry_api::{ErrorBody, container, events, exec, image, network, system, volume};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn golden(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).unwrap()
}

/// `serde_json` keeps key order here, and text compares it.
fn round_trip<T: DeserializeOwned + Serialize>(name: &str) {
    for line in golden(name).lines() {
        same::<T>(line, name);
    }
}

fn same<T: DeserializeOwned + Serialize>(text: &str, name: &str) {
    let theirs: Value = serde_json::from_str(text).unwrap();
    let read: T = serde_json::from_str(text).unwrap_or_else(|e| panic!("{name}: {e}"));
    let ours = serde_json::to_value(&read).unwrap();
    assert_eq!(ours, theirs, "{name}");
    let text = |value| serde_json::to_string_pretty(value).unwrap();
    assert_eq!(text(&ours), text(&theirs), "{name}: key order");
}

#[test]
fn containers_are_inspected_as_docker_does() {
    for state in ["created", "running", "exited", "full", "network"] {
        round_trip::<container::Inspect>(&format!("container_inspect_{state}.json"));
    }
}

#[test]
fn containers_are_listed_as_docker_does() {
    for list in [
        "container_list.json",
        "container_list_size.json",
        "container_list_network.json",
    ] {
        round_trip::<Vec<container::Summary>>(list);
    }
}

#[test]
fn what_containers_answer_is_what_docker_answers() {
    round_trip::<container::Created>("container_create_response.json");
    round_trip::<container::Top>("container_top.json");
    round_trip::<container::Wait>("container_wait.json");
    round_trip::<container::Updated>("container_update.json");
    round_trip::<Option<Vec<container::Change>>>("container_changes.json");
    round_trip::<Option<Vec<container::Change>>>("container_changes_none.json");
    for stats in [
        "container_stats.json",
        "container_stats_oneshot.json",
        "container_stats_stopped.json",
    ] {
        round_trip::<container::Stats>(stats);
    }
}

#[test]
fn execs_are_what_docker_answers() {
    round_trip::<exec::Created>("exec_create_response.json");
    round_trip::<exec::Inspect>("exec_inspect_created.json");
    round_trip::<exec::Inspect>("exec_inspect_running.json");
}

#[test]
fn images_are_what_docker_answers() {
    for list in ["image_list.json", "image_list_shared.json", "image_list_many.json"] {
        round_trip::<Vec<image::Summary>>(list);
    }
    for inspect in [
        "image_inspect.json",
        "image_inspect_rich.json",
        "image_inspect_committed.json",
    ] {
        round_trip::<image::Inspect>(inspect);
    }
    round_trip::<Vec<image::History>>("image_history.json");
    round_trip::<Vec<image::History>>("image_history_committed.json");
    for delete in ["image_delete.json", "image_delete_rich.json", "image_delete_untag.json"] {
        round_trip::<Vec<image::Deleted>>(delete);
    }
}

#[test]
fn message_streams_are_what_docker_sends() {
    for stream in [
        "image_load.ndjson",
        "image_load_error.ndjson",
        "image_load_progress.ndjson",
        "image_import.ndjson",
        "image_pull.ndjson",
    ] {
        round_trip::<image::Message>(stream);
    }
}

#[test]
fn networks_and_volumes_are_what_docker_answers() {
    round_trip::<Vec<network::Inspect>>("network_list.json");
    for name in ["bridge", "none", "custom"] {
        round_trip::<network::Inspect>(&format!("network_inspect_{name}.json"));
    }
    round_trip::<volume::List>("volume_list.json");
    round_trip::<volume::Volume>("volume_inspect.json");
}

#[test]
fn the_engine_describes_itself_as_docker_does() {
    round_trip::<system::Info>("info.json");
    round_trip::<system::Version>("version.json");
    round_trip::<system::DiskUsage>("system_df.json");
    round_trip::<ErrorBody>("error.json");
    round_trip::<ErrorBody>("pull_error.ndjson");
}

#[test]
fn events_are_byte_for_byte_what_docker_streams() {
    let text = golden("events.ndjson");
    round_trip::<events::Message>("events.ndjson");
    for line in text.lines() {
        let event: events::Message = serde_json::from_str(line).unwrap();
        assert_eq!(
            String::from_utf8(ferry_api::json::message(&event).unwrap())
                .unwrap()
                .trim_end(),
            line
        );
        let attributes = event.actor.attributes.clone().unwrap_or_default();
        let at = jiff::Timestamp::from_nanosecond(event.time_nano.into()).unwrap();
        let made = events::Message::new(
            &event.r#type,
            event.action.clone(),
            event.actor.id.clone(),
            attributes,
            at,
        );
        assert_eq!(made, event);
    }
}

#[test]
fn bodies_are_byte_for_byte_what_docker_writes() {
    let text = golden("container_inspect_running.json");
    let read: container::Inspect = serde_json::from_str(&text).unwrap();
    assert_eq!(String::from_utf8(ferry_api::json::body(&read).unwrap()).unwrap(), text);
}

#[test]
fn requests_of_the_docker_cli_lose_nothing() {
    for create in ["minimal", "ports", "full"] {
        round_trip::<container::Create>(&format!("request_create_{create}.json"));
    }
    round_trip::<container::Update>("request_update.json");
}
