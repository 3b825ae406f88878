//! How a managed pod boots: from its record and the mounted file, closed until it knows better.

use lifecycle::{State, Verb};

use crate::process::{Home, agent, command, eventually};

fn ticking() -> String {
    agent(0.1)
}

#[tokio::test]
async fn with_neither_record_nor_file_it_stays_paused_for_ever() {
    let home = Home::new(&ticking()).managed().with("HIVE_BOOT_HOLD_SECONDS", "1");
    let runtime = home.start().await;
    let status = runtime.reach(State::Paused).await;
    assert!(status.awaiting_confirmation);
    // Not a synchronisation: the boot hold ends in this time, and must not open the gate.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(runtime.status().await.state, State::Paused);
    assert!(home.lines("ticks").is_empty());
    // Nothing has said yet whether commands are signed, so none is obeyed.
    let refused = runtime.send(Verb::Start, &command(1)).await.unwrap_err();
    assert!(refused.to_string().contains("no boot file"), "{refused}");
    home.write_boot(1, "running");
    home.wait_for_lines("ticks", 1).await;
}

#[tokio::test]
async fn the_gate_opens_with_the_operators_confirmation_of_the_same_epoch() {
    let home = Home::new(&ticking()).managed();
    home.write_boot(3, "running");
    let runtime = home.start().await;
    let status = runtime.reach(State::Paused).await;
    assert_eq!((status.epoch, status.awaiting_confirmation), (3, true));
    runtime.send(Verb::Start, &command(3)).await.unwrap();
    let status = runtime.reach(State::Running).await;
    assert!(!status.awaiting_confirmation);
}

#[tokio::test]
async fn without_the_operator_the_file_is_believed_at_the_end_of_the_hold() {
    let home = Home::new(&ticking()).managed().with("HIVE_BOOT_HOLD_SECONDS", "2");
    home.write_boot(3, "running");
    let runtime = home.start().await;
    assert_eq!(runtime.reach(State::Paused).await.epoch, 3);
    runtime.reach(State::Running).await;
}

#[tokio::test]
async fn a_mount_that_is_brought_up_to_date_during_the_hold_is_obeyed() {
    let home = Home::new(&ticking()).managed().with("HIVE_BOOT_HOLD_SECONDS", "3");
    home.write_boot(3, "running");
    let runtime = home.start().await;
    runtime.reach(State::Paused).await;
    home.write_boot(4, "paused");
    eventually("the newer file is taken over", || async { runtime.status().await.epoch == 4 }).await;
    eventually("the hold ends", || async { !runtime.status().await.awaiting_confirmation }).await;
    assert_eq!(runtime.status().await.state, State::Paused);
    assert!(home.lines("ticks").is_empty());
}

#[tokio::test]
async fn a_killed_paused_runtime_comes_up_paused_though_its_mount_is_stale() {
    let home = Home::new(&ticking()).managed().with("HIVE_BOOT_HOLD_SECONDS", "1");
    home.write_boot(3, "running");
    let runtime = home.start().await;
    runtime.send(Verb::Start, &command(3)).await.unwrap();
    home.wait_for_lines("ticks", 1).await;
    runtime.send(Verb::Pause, &command(4)).await.unwrap();
    runtime.reach(State::Paused).await;
    let before = home.lines("ticks").len();
    runtime.kill().await;
    let runtime = home.start().await;
    eventually("the hold ends", || async { !runtime.status().await.awaiting_confirmation }).await;
    let status = runtime.status().await;
    assert_eq!((status.epoch, status.state), (4, State::Paused));
    assert_eq!(home.lines("ticks").len(), before);
}

#[tokio::test]
async fn a_persons_pause_outlives_the_process() {
    let home = Home::new(&ticking());
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    runtime.ask(Verb::Pause).await;
    runtime.kill().await;
    let runtime = home.start().await;
    assert_eq!(runtime.reach(State::Paused).await.holds, ["local"]);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_runs_nothing() {
    let home = Home::new(&ticking()).managed();
    std::fs::create_dir(home.path(".hive")).unwrap();
    std::fs::write(home.path(".hive/fence.json"), "{").unwrap();
    let mut child = home.spawn();
    let status = tokio::time::timeout(crate::process::PATIENCE, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(home.lines("ticks").is_empty());
}
