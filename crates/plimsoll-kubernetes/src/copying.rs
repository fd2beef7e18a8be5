//! Copying a service's state and putting a copy back: a command of the image that serves, beside the state.
//!
//! A copy is made in a pod that serves. It is put back while none does, so by a pod of its own, made from the template of the
//! slot's workload: the same image, volumes and variables, no label by which anything would send it requests or own it.

use crate::{
    cluster::{refused, unreachable, unwritable},
    cut_over::Site,
    job, logs,
    object::Object,
    pods,
    workload::{Workload, WorkloadKind},
    world::World,
};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, StatefulSet},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Status,
};
use kube::api::{AttachParams, AttachedProcess};
use plimsoll_core::{Generation, ServiceName, Slot};
use plimsoll_deploy::{STATE_COMMAND, Stateful, TargetError, admit_backup, admit_restore};
use serde_json::json;
use std::{io, path::Path, time::Duration};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, copy},
    time::{Instant, sleep, timeout},
};

/// How long the pod that puts a copy back may take to run: its image is on a node already, as a rule.
const BEGIN: Duration = Duration::from_mins(2);
/// How long pods of a stopped service may take to end; more than their grace as a rule.
const END: Duration = Duration::from_mins(2);
/// Between two looks at pods.
const PAUSE: Duration = Duration::from_millis(250);
/// The most bytes of what a command says beside its output that are kept, and the lines that are told of it.
const SAID: u64 = 64 << 10;
const TAIL: usize = 20;

/// Writes a copy into `to`.
pub(crate) async fn backup(site: &Site<'_>, service: &ServiceName, to: &Path) -> Result<(), TargetError> {
    let world = site.look().await?;
    let seen = world.observation();
    let of = admit_backup(&seen, service)?;
    let pod = world.pods_of(service, of.slot).into_iter().find(|pod| pods::is_running(pod));
    let what = format!("copy the state of {service}");
    let pod = pod.ok_or_else(|| refused(&what, "no pod of it runs, and the copy is made in one"))?;
    let workload = world.workload(service, of.slot);
    let workload = workload.ok_or_else(|| refused(&what, "its workload is not there, and tells how it runs"))?;
    let template = template(site, workload).await?;
    alone(&template, workload, &what)?;
    let container = job::container(&template, service).and_then(|container| container["name"].as_str());
    let container = container.ok_or_else(|| refused(&what, "its workload has no container for it"))?;
    let params = AttachParams::default().stdin(false).container(container);
    let save = of.commands.save.iter().map(String::as_str);
    let process = site.cluster.api::<Pod>().exec(pods::name(pod), save, &params).await;
    let process = process.map_err(|e| unreachable(format!("run {:?} in {}", of.commands.save, pods::name(pod)), e))?;
    let Ok(kept) = timeout(STATE_COMMAND, keep(process, to)).await else {
        let minutes = STATE_COMMAND.as_secs() / 60;
        return Err(failed(&of, &of.commands.save, &format!("it had not ended after {minutes} minutes"), Vec::new()));
    };
    let (status, said) = kept.map_err(|e| unreachable(what, e))?;
    match job::failure(status.as_ref()) {
        None => Ok(()),
        Some(how) => Err(failed(&of, &of.commands.save, &how, last_lines(&said))),
    }
}

/// Keeps what a process writes until it has ended: how it did, and what it said beside.
async fn keep(mut process: AttachedProcess, to: &Path) -> io::Result<(Option<Status>, Vec<u8>)> {
    let (out, errors, status) = (process.stdout(), process.stderr(), process.take_status());
    let output = async {
        let mut file = File::create(to).await?;
        if let Some(mut out) = out {
            copy(&mut out, &mut file).await?;
        }
        file.flush().await
    };
    let (output, said) = tokio::join!(output, beside(errors));
    output?;
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    // What was cut off in the middle is an error of the connection, and no end.
    process.join().await.map_err(io::Error::other)?;
    Ok((status, said))
}

async fn beside(errors: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut said = Vec::new();
    if let Some(mut errors) = errors {
        let _ = (&mut errors).take(SAID).read_to_end(&mut said).await;
        let _ = copy(&mut errors, &mut tokio::io::sink()).await;
    }
    said
}

fn last_lines(said: &[u8]) -> Vec<String> {
    let lines: Vec<String> = String::from_utf8_lossy(said).lines().map(str::to_owned).collect();
    lines[lines.len().saturating_sub(TAIL)..].to_vec()
}

fn failed(of: &Stateful<'_>, command: &[String], how: &str, log_tail: Vec<String>) -> TargetError {
    let reason = format!("`{}`: {how}", command.join(" "));
    TargetError::Slot { service: of.spec.name.clone(), slot: of.slot, reason, log_tail }
}

/// Puts the copy in `from_file` in the place of a state that nobody works on.
pub(crate) async fn restore(
    site: &Site<'_>,
    from: Generation,
    service: &ServiceName,
    from_file: &Path,
) -> Result<(), TargetError> {
    let what = format!("replace the state of {service}");
    let begun = Instant::now();
    // Ends by the bound on their end: pods that were told to stop may finish what they have.
    let (world, seen) = loop {
        let world = site.look().await?;
        let seen = world.observation();
        admit_restore(&seen, from, service)?;
        let Some(busy) = at_work(&world, service) else { break (world, seen) };
        if begun.elapsed() > END {
            return Err(refused(&what, format!("{busy} has not ended yet")));
        }
        sleep(PAUSE).await;
    };
    let of = admit_restore(&seen, from, service)?;
    let workload = world.workload(service, of.slot);
    let workload = workload.ok_or_else(|| refused(&what, "its workload is not there, and tells where the state is"))?;
    for left in site.cluster.list::<Pod>(&job::labels(site.environment, Some(service))).await? {
        end(site, pods::name(&left)).await?;
    }
    let template = template(site, workload).await?;
    alone(&template, workload, &what)?;
    let pod = job::pod(&template, &of.spec.name, site.environment, &of.commands.load);
    let pod = pod.ok_or_else(|| refused(&what, "its workload has no container"))?;
    if let Some(busy) = mounting(site, &pod).await? {
        return Err(refused(&what, format!("{busy}, which is none of this environment's, has its volume")));
    }
    let object = Object::try_from(pod).map_err(|e| unwritable(&what, e))?;
    site.cluster.create_if_missing(&object).await?;
    let done = feed(site, &of, object.name(), from_file).await;
    match (done, end(site, object.name()).await) {
        // The state is replaced; what is left of the pod has ended.
        (Ok(()), Err(error)) => {
            tracing::warn!(error = plimsoll_core::chain(&error), "a pod that has ended is not deleted");
            Ok(())
        }
        // Whoever starts services now must know that nothing works on the state any more.
        (Err(_), Err(error)) => Err(error),
        (done, Ok(())) => done,
    }
}

/// Deletes a pod that worked on a state, and waits until it is gone.
async fn end(site: &Site<'_>, name: &str) -> Result<(), TargetError> {
    site.cluster.delete::<Pod>(name).await?;
    let begun = Instant::now();
    // Ends by the bound on an end.
    while let Some(pod) = site.cluster.get::<Pod>(name).await? {
        if begun.elapsed() > END {
            let last = TargetError::Unreachable { what: format!("end {name}"), source: "it is still there".into() };
            return if pods::has_ended(&pod) { Ok(()) } else { Err(last) };
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Before anything is started: nothing works on a state any more. What has ended is deleted.
pub(crate) async fn none_at_work(site: &Site<'_>) -> Result<(), TargetError> {
    for pod in site.cluster.list::<Pod>(&job::labels(site.environment, None)).await? {
        if !pods::has_ended(&pod) {
            let reason = format!("{} is putting a copy of a state back", pods::name(&pod));
            return Err(refused(&format!("start {}", site.environment), reason));
        }
        site.cluster.delete::<Pod>(pods::name(&pod)).await?;
    }
    Ok(())
}

/// Refuses states of which each pod has one of its own: there is one copy.
fn alone(template: &serde_json::Value, workload: &Workload, what: &str) -> Result<(), TargetError> {
    if template["spec"]["volumeClaimTemplates"].is_array() && workload.wanted > 1 {
        let reason = format!("each of the {} pods of {} has a state of its own", workload.wanted, workload.name);
        return Err(refused(what, reason));
    }
    Ok(())
}

/// A pod that has a claim mounted which `pod` is to mount.
async fn mounting(site: &Site<'_>, pod: &serde_json::Value) -> Result<Option<String>, TargetError> {
    let wanted = job::claims(pod);
    let all = site.cluster.list::<Pod>("").await?;
    let mut busy = all.into_iter().filter(|other| !pods::has_ended(other));
    Ok(busy.find(|other| !job::claims(&json!(other)).is_disjoint(&wanted)).map(|p| pods::name(&p).to_owned()))
}

/// A pod of either slot that may still work on the state.
fn at_work(world: &World, service: &ServiceName) -> Option<String> {
    let all = [Slot::Blue, Slot::Green].into_iter().flat_map(|slot| world.all_pods_of(service, slot));
    all.filter(|pod| !pods::has_ended(pod)).map(|pod| pods::name(pod).to_owned()).next()
}

/// The workload as it is in the cluster.
async fn template(site: &Site<'_>, of: &Workload) -> Result<serde_json::Value, TargetError> {
    let found = match of.kind {
        WorkloadKind::Deployment => site.cluster.get::<Deployment>(&of.name).await?.map(|it| json!(it)),
        WorkloadKind::StatefulSet => site.cluster.get::<StatefulSet>(&of.name).await?.map(|it| json!(it)),
    };
    found.ok_or_else(|| refused(&format!("read {}", of.name), "it is gone"))
}

/// Gives the pod its input, and waits until it has ended.
async fn feed(site: &Site<'_>, of: &Stateful<'_>, name: &str, from_file: &Path) -> Result<(), TargetError> {
    let load = &of.commands.load;
    let begun = Instant::now();
    // Ends by the bound on its beginning.
    let pod = loop {
        let pod = look(site, name).await?;
        if pods::is_running(&pod) || pods::has_ended(&pod) {
            break pod;
        }
        let trouble = pods::trouble(&pod);
        if trouble.as_ref().is_some_and(|t| t.stuck) || begun.elapsed() > BEGIN {
            let why = trouble.map_or_else(|| "no reason is known".to_owned(), |t| t.reason);
            return Err(failed(of, load, &format!("its pod does not run: {why}"), Vec::new()));
        }
        sleep(PAUSE).await;
    };
    if pods::is_running(&pod) {
        let what = format!("hand the copy to {name}");
        let handed = timeout(STATE_COMMAND, hand(site, name, from_file)).await;
        let handed = handed.map_err(|late| unreachable(what.clone(), late))?;
        // One that has ended reads no more, and says why itself.
        if let Err(error) = handed
            && !pods::has_ended(&look(site, name).await?)
        {
            return Err(unreachable(what, error));
        }
    }
    let begun = Instant::now();
    // Ends by the bound on a command.
    loop {
        let pod = look(site, name).await?;
        if pods::has_ended(&pod) {
            let Some(how) = job::ended(&pod) else { return Ok(()) };
            return Err(failed(of, load, &how, logs::tail(site.cluster, &[&pod], TAIL).await));
        }
        if begun.elapsed() > STATE_COMMAND {
            return Err(failed(of, load, "it does not end", logs::tail(site.cluster, &[&pod], TAIL).await));
        }
        sleep(PAUSE).await;
    }
}

async fn look(site: &Site<'_>, name: &str) -> Result<Pod, TargetError> {
    let found = site.cluster.get::<Pod>(name).await?;
    found.ok_or_else(|| refused(&format!("wait for {name}"), "somebody deleted it"))
}

async fn hand(site: &Site<'_>, name: &str, from_file: &Path) -> io::Result<()> {
    let params = AttachParams::default().stdin(true).stdout(false).stderr(true);
    let attached = site.cluster.api::<Pod>().attach(name, &params).await;
    let mut attached = attached.map_err(io::Error::other)?;
    let (input, errors) = (attached.stdin(), attached.stderr());
    let give = async {
        let mut file = File::open(from_file).await?;
        if let Some(mut input) = input {
            copy(&mut file, &mut input).await?;
            input.shutdown().await?;
        }
        Ok::<(), io::Error>(())
    };
    let (given, _) = tokio::join!(give, beside(errors));
    given?;
    attached.join().await.map_err(io::Error::other)
}
