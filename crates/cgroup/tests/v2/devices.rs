//! Device rules by eBPF, which needs no controller.

use ferry_cgroup::{Error, devices};
use oci_spec::runtime::LinuxResources;

use super::testbed::{Testbed, testbed};

fn rules(json: &str) -> LinuxResources {
    serde_json::from_str(&format!(r#"{{"devices": {json}}}"#)).unwrap()
}

const NULL_ONLY: &str = r#"[{"allow": false}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}]"#;
const ZERO_READ: &str = r#"[{"allow": false}, {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "r"}]"#;
const ALL: &str = r#"[{"allow": true}]"#;

/// Of null, zero for reading and zero for writing, those that the group may open.
fn allowed(bed: &Testbed) -> String {
    // Each in a shell of its own, which a redirection that fails ends.
    let script =
        "(: < /dev/null) 2>&- && echo null; (: < /dev/zero) 2>&- && echo zero; (: > /dev/zero) 2>&- && echo write";
    bed.output(bed.cgroup.path(), script)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn root_rules_are_in_force_and_an_update_replaces_them() {
    let Some(bed) = testbed() else { return };
    assert_eq!(allowed(&bed), "null zero write");
    for (json, wanted) in [
        (NULL_ONLY, "null"),
        (ZERO_READ, "zero"),
        (NULL_ONLY, "null"),
        (ALL, "null zero write"),
        (NULL_ONLY, "null"),
    ] {
        assert_eq!(bed.cgroup.update(&rules(json)).unwrap(), []);
        assert_eq!(allowed(&bed), wanted, "{json}");
    }
    // Whatever else is updated leaves them alone.
    bed.cgroup.update(&LinuxResources::default()).unwrap();
    assert_eq!(allowed(&bed), "null");
}

#[test]
fn root_a_group_below_is_bound_by_the_rules_above_it() {
    let Some(bed) = testbed() else { return };
    bed.cgroup.update(&rules(NULL_ONLY)).unwrap();
    let (inner, _) = bed
        .hierarchy
        .create(&format!("{}/inner", bed.cgroup.path()), &rules(ALL))
        .unwrap();
    let seen = bed.output(inner.path(), "cat /dev/null && echo null; head -c 1 /dev/zero");
    assert!(seen.starts_with("null\n") && seen.contains("not permitted"), "{seen}");
}

#[test]
fn root_a_group_that_is_taken_over_has_the_new_rules_alone() {
    let Some(bed) = testbed() else { return };
    bed.cgroup.update(&rules(NULL_ONLY)).unwrap();
    let (_, warnings) = bed.hierarchy.create(bed.cgroup.path(), &rules(ZERO_READ)).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(allowed(&bed), "zero");
}

#[test]
fn root_every_container_s_rules_and_long_lists_pass_the_verifier() {
    let Some(bed) = testbed() else { return };
    let mut list = devices::defaults();
    let one: LinuxResources = rules(r#"[{"allow": true, "type": "b", "major": 7, "minor": 0, "access": "rm"}]"#);
    for minor in 0..200 {
        let mut rule = one.devices().as_ref().unwrap()[0].clone();
        rule.set_minor(Some(minor));
        list.push(rule);
    }
    let mut resources = LinuxResources::default();
    resources.set_devices(Some(list));
    bed.cgroup.update(&resources).unwrap();
    assert_eq!(allowed(&bed), "null zero write");
}

#[test]
fn root_a_list_that_makes_no_sense_changes_nothing() {
    let Some(bed) = testbed() else { return };
    bed.cgroup.update(&rules(NULL_ONLY)).unwrap();
    let wrong = rules(r#"[{"allow": true, "type": "c", "major": -7, "access": "r"}]"#);
    assert!(matches!(bed.cgroup.update(&wrong), Err(Error::Invalid { .. })));
    assert_eq!(allowed(&bed), "null");
}
