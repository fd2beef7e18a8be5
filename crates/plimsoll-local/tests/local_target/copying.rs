//! A supervisor that dies while a copy of a state is put back. That copies come and go at all is in the suite of all targets.

use crate::{
    harness::scenarios,
    target::command,
    world::{World, eventually, is_running, kill, release, spec},
};
use plimsoll_core::{BackupCommands, Generation, ServiceName, Slot};
use plimsoll_deploy::{ServiceSpec, StatePolicy, Target as _};
use std::{fs, sync::Arc};

scenarios![what_a_killed_supervisor_left_at_work_on_a_state_is_ended_before_anything_starts];

async fn what_a_killed_supervisor_left_at_work_on_a_state_is_ended_before_anything_starts(world: Arc<World>) {
    let api: ServiceName = "api".parse().unwrap();
    let backup = Some(BackupCommands { save: command("save"), load: command("load") });
    let spec = ServiceSpec { state: StatePolicy::Shared, backup, ..spec("api", &[("MODE", "slow-load")]) };
    world.release(&release("1", vec![spec]), Slot::Blue).await.unwrap();
    world.get("api", "/put/early").await;
    let copy = world.directory.path().join("copy");
    world.target.backup(&api, &copy).await.unwrap();
    world.get("api", "/put/late").await;
    let stopped = world.target.stop(Generation(1), "ann", None).await.unwrap();
    let restoring = tokio::spawn({
        let (world, api) = (Arc::clone(&world), api.clone());
        async move { world.target.restore(stopped, &api, &copy).await }
    });
    let loading = world.directory.path().join("state/staging/api/loading");
    eventually("the copy is being put back", || async {
        fs::read_to_string(&loading).is_ok_and(|pid| !pid.is_empty())
    })
    .await;
    let command: u32 = fs::read_to_string(&loading).unwrap().parse().unwrap();
    kill(world.target.hello().await.unwrap().pid);
    assert!(restoring.await.unwrap().is_err(), "nobody knows what becomes of it");
    assert!(is_running(command), "it works on");
    world.target.start(stopped, "ann").await.unwrap();
    assert!(!is_running(command), "and is ended before anything starts");
    world.ready(&api, Slot::Blue).await;
    assert_eq!(world.get("api", "/kept").await, "late");
}
