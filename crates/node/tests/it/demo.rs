//! `qurrent demo --exit --json`: the whole story, twice in the same folder.

use serde_json::Value;

use crate::world::{QURRENT, fails, str_of};

fn demo(dir: &std::path::Path, more: &[&str]) -> Value {
    let mut command = std::process::Command::new(QURRENT);
    command.args(["demo", "--exit", "--json", "--dir", str_of(dir)]).args(more);
    let out = crate::world::ok_of(&mut command);
    serde_json::from_str(&out).unwrap()
}

#[test]
fn the_demo_tells_its_story_and_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let first = demo(dir.path(), &[]);
    assert_eq!(first["ok"], true, "{first:#}");
    let steps = first["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 8, "{first:#}");
    assert!(steps.iter().all(|step| step["ok"] == true));
    assert_eq!(first["restarted"], serde_json::json!([]));

    let second = demo(dir.path(), &["--attack", "taiyuan-jinzhong=intercept-resend:0.5"]);
    assert_eq!(second["ok"], true, "{second:#}");
    let told = second["steps"].to_string();
    assert!(told.contains("resumed") && told.contains("is there already"), "{told}");
    assert!(told.contains("eavesdroppers noticed") && told.contains("resent"), "{told}");
}

#[test]
fn a_second_demo_in_the_same_folder_is_refused_while_the_first_runs() {
    let dir = tempfile::tempdir().unwrap();
    let lock = std::fs::File::create(dir.path().join("demo.lock")).unwrap();
    lock.lock().unwrap();
    let said = fails(&["demo", "--exit", "--dir", str_of(dir.path())]);
    assert!(said.contains("runs in") && said.contains("--dir"), "{said}");
}
