//! Replicas as processes of this machine: each on a port of its own on loopback, with a log file that it holds itself.

use crate::{
    images::{Payload, Rootfs},
    supervisor::{
        LocalPaths, logs, ports,
        protocol::SecretValues,
        runtime::{
            Doing, Inside, Instance, JOB_TAIL, Job, JobKind, Keep, Login, Order, Place, Running, Runtime, RuntimeError,
        },
    },
};
use plimsoll_core::EnvironmentName;
use plimsoll_deploy::{STATE_COMMAND, ServiceSpec, TargetError};
use plimsoll_process::{Adopted, Cmd, ExitSeen, end_marked, spawn_detached};
use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Processes;

impl Runtime for Processes {
    /// The command that asks has unpacked the image.
    fn prepare<'a>(
        &'a self,
        _: &'a ServiceSpec,
        _: &'a Payload,
        _: Option<&'a Login>,
    ) -> Doing<'a, Result<(), TargetError>> {
        Box::pin(async { Ok(()) })
    }

    fn gateway<'a>(
        &'a self,
        _: &'a LocalPaths,
        _: &'a EnvironmentName,
        _: &'a Payload,
    ) -> Doing<'a, Result<Ipv4Addr, RuntimeError>> {
        Box::pin(async { Ok(Ipv4Addr::LOCALHOST) })
    }

    fn start(&self, order: Order) -> Doing<'_, Result<Arc<dyn Running>, RuntimeError>> {
        Box::pin(async move {
            let started = tokio::task::spawn_blocking(move || start(&order)).await;
            let (process, port) = started.unwrap_or(Err(RuntimeError::Gone))?;
            Ok(Arc::new(Process { process, port }) as Arc<dyn Running>)
        })
    }

    fn find<'a>(
        &'a self,
        _: &'a Place,
        known: Option<&'a Instance>,
        port: u16,
    ) -> Doing<'a, Result<Option<Arc<dyn Running>>, RuntimeError>> {
        Box::pin(async move {
            let Some(Instance::Process(known)) = known else { return Ok(None) };
            Ok(known.adopt().map(|process| Arc::new(Process { process, port }) as Arc<dyn Running>))
        })
    }

    fn sweep<'a>(&'a self, place: &'a Place) -> Doing<'a, Result<(), RuntimeError>> {
        Box::pin(async move {
            end_marked(&place.name(), Duration::ZERO).await;
            Ok(())
        })
    }

    fn sweep_jobs<'a>(&'a self, place: &'a Place) -> Doing<'a, Result<(), RuntimeError>> {
        Box::pin(async move {
            for kind in [JobKind::Save, JobKind::Load] {
                end_marked(&kind.name(place), Duration::ZERO).await;
            }
            Ok(())
        })
    }

    fn tail<'a>(&'a self, place: &'a Place, lines: usize) -> Doing<'a, Vec<String>> {
        Box::pin(async move {
            let slot = &place.key.slot;
            let path = place.paths.replica_log(&slot.environment, &slot.service, slot.slot, place.key.n);
            logs::tail(&path, lines)
        })
    }

    fn beside<'a>(&'a self, order: Order, job: &'a Job) -> Doing<'a, Result<(), RuntimeError>> {
        Box::pin(async move {
            let slot = &order.place.key.slot;
            let log = order.place.paths.copying_log(&slot.environment, &slot.service, job.kind.word());
            // One that a supervisor left which is gone by now.
            end_marked(&job.kind.name(&order.place), Duration::ZERO).await;
            let process = begin(&order, job, &log)?;
            let Ok(ended) = tokio::time::timeout(STATE_COMMAND, process.wait_exit()).await else {
                process.kill_tree(Duration::ZERO).await?;
                let how = format!("it was ended after {} minutes", STATE_COMMAND.as_secs() / 60);
                return Err(RuntimeError::Command { how, said: logs::tail(&log, JOB_TAIL) });
            };
            match words(ended) {
                None => Ok(()),
                Some(how) => Err(RuntimeError::Command { how, said: logs::tail(&log, JOB_TAIL) }),
            }
        })
    }

    /// A process is found by its mark when its place is used again; there is nothing else of it.
    fn tidy<'a>(&'a self, _: &'a LocalPaths, _: &'a Path, _: &'a Keep) -> Doing<'a, Result<(), RuntimeError>> {
        Box::pin(async { Ok(()) })
    }
}

/// Starts a replica on a port of its own.
fn start(order: &Order) -> Result<(Adopted, u16), RuntimeError> {
    order.check_secrets()?;
    let Payload::Rootfs(Rootfs { program, args, cwd, env, .. }) = &order.place.payload else {
        return Err(RuntimeError::Gone);
    };
    let port = ports::free().map_err(RuntimeError::Port)?;
    let state = order.state_directory()?;
    let (slot, n) = (&order.place.key.slot, order.place.key.n);
    let log = order.place.paths.replica_log(&slot.environment, &slot.service, slot.slot, n);
    let log = logs::open(&log).map_err(RuntimeError::Prepare)?;
    let errors = log.try_clone().map_err(RuntimeError::Prepare)?;
    let inside = Inside { host: Ipv4Addr::LOCALHOST, port, identity: order.identity(), state };
    // Later ones replace earlier ones: what the image says counts least.
    let command = Cmd::new(program).args(args).cwd(cwd).envs(env).envs(order.variables(&inside));
    let started = spawn_detached(&command.marker(order.place.name()), log, errors, None)?;
    Ok((started.adopt().ok_or(RuntimeError::Gone)?, port))
}

/// Starts a command beside the state.
fn begin(order: &Order, job: &Job, log: &Path) -> Result<Adopted, RuntimeError> {
    order.check_secrets()?;
    let Payload::Rootfs(rootfs) = &order.place.payload else { return Err(RuntimeError::Gone) };
    let (name, args) = job.command.split_first().ok_or(RuntimeError::Gone)?;
    let program = rootfs.inside(name).ok_or_else(|| RuntimeError::Command {
        how: format!("its program {name} is not in the image that serves"),
        said: Vec::new(),
    })?;
    let state = order.state_directory()?;
    // What an earlier one said is not told again.
    let _ = std::fs::remove_file(log);
    let errors = logs::open(log).map_err(RuntimeError::Prepare)?;
    let output = match &job.output {
        Some(path) => File::create(path),
        None => errors.try_clone(),
    };
    let output = output.map_err(RuntimeError::Prepare)?;
    let input = job.input.as_ref().map(File::open).transpose().map_err(RuntimeError::Prepare)?;
    let inside = Inside { host: Ipv4Addr::LOCALHOST, port: 0, identity: order.identity(), state };
    let command = Cmd::new(program).args(args).cwd(&rootfs.cwd).envs(&rootfs.env).envs(order.variables(&inside));
    let started = spawn_detached(&command.marker(job.kind.name(&order.place)), output, errors, input.map(Into::into))?;
    started.adopt().ok_or(RuntimeError::Gone)
}

/// How a process ended; nothing of one that exited with status 0.
fn words(ended: std::io::Result<ExitSeen>) -> Option<String> {
    match ended {
        Ok(ExitSeen::Code(0)) => None,
        Ok(ExitSeen::Code(code)) => Some(format!("it exited with code {code}")),
        Ok(ExitSeen::Signal(signal)) => Some(format!("signal {signal} ended it")),
        Ok(ExitSeen::Unobserved) => Some("it ended unobserved".to_owned()),
        Err(error) => Some(format!("it ended ({error})")),
    }
}

#[derive(Debug)]
struct Process {
    process: Adopted,
    port: u16,
}

impl Running for Process {
    fn instance(&self) -> Instance {
        Instance::Process(self.process.identity().clone())
    }

    fn pid(&self) -> u32 {
        self.process.identity().pid
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    fn answers(&self) -> Doing<'_, bool> {
        Box::pin(ports::belongs(self.port, self.pid()))
    }

    fn ended(&self) -> Doing<'_, String> {
        Box::pin(async { words(self.process.wait_exit().await).unwrap_or_else(|| "it exited with code 0".to_owned()) })
    }

    fn end(&self, grace: Duration) -> Doing<'_, Result<(), RuntimeError>> {
        Box::pin(async move {
            self.process.kill_tree(grace).await?;
            Ok(())
        })
    }

    fn secrets(&self, spec: &ServiceSpec) -> SecretValues {
        let bytes = std::fs::read(format!("/proc/{}/environ", self.pid())).unwrap_or_default();
        let variable = |entry: &[u8]| {
            let (name, value) = std::str::from_utf8(entry).ok()?.split_once('=')?;
            spec.secret_env.contains_key(name).then(|| (name.to_owned(), value.to_owned()))
        };
        SecretValues(bytes.split(|b| *b == 0).filter_map(variable).collect())
    }
}
