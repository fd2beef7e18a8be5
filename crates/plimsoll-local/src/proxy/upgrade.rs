//! A connection after `101 Switching Protocols`: bytes both ways, until one side ends it or the slot is emptied.

use super::{
    accept::Client,
    frames::{Frames, GOING_AWAY},
    pool::{Pooled, UpIo},
    state::{Stage, State},
    target::{End, InFlight, Phase},
};
use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    time::timeout,
};

/// The 101 was read and is written next; a client that takes longer to accept it has gone.
const SWITCH_LIMIT: Duration = Duration::from_secs(30);

/// When one side has ended its half, how long the other may go on.
const HALF_CLOSED_LIMIT: Duration = Duration::from_mins(1);

/// How long a client that was told to go may take to answer, so that closing does not destroy what it was told.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);

/// Bytes read at a time, in each direction.
const CHUNK: usize = 16 * 1024;

/// The two ends while they switch.
pub(crate) struct Ends {
    pub(crate) client: OnUpgrade,
    pub(crate) service: OnUpgrade,
    pub(crate) pooled: Pooled,
}

/// Copies between client and service. Holds the client's place among the connections.
pub(crate) async fn tunnel(state: Arc<State>, client: Arc<Client>, flight: InFlight, ends: Ends, websocket: bool) {
    let switching = async { tokio::join!(ends.client, ends.service, ends.pooled.run()) };
    let target = Arc::clone(&flight.target);
    let switched = tokio::select! {
        switched = timeout(SWITCH_LIMIT, switching) => switched,
        () = target.reached(Phase::Ended) => return flight.finish(End::Aborted),
    };
    let Ok((Ok(to_client), Ok(to_service), ())) = switched else { return };
    let (Ok(to_client), Ok(to_service)) = (to_client.downcast::<TokioIo<TcpStream>>(), to_service.downcast::<UpIo>())
    else {
        return;
    };
    let (mut near, mut far) = (to_client.io.into_inner(), to_service.io.into_stream());
    let told = async {
        tokio::select! {
            () = target.reached(Phase::Draining) => {}
            () = state.at(Stage::Retiring) => {}
        }
    };
    let end = tokio::select! {
        // First, because a target that is cut off tells nobody to go.
        biased;
        () = target.reached(Phase::Ended) => End::Aborted,
        () = state.at(Stage::Closing) => End::Aborted,
        end = relay(&mut near, &mut far, [to_client.read_buf, to_service.read_buf], websocket, told) => end,
    };
    if end == End::ToldToGo {
        // Half a close each: the service learns that no more comes, the client may still answer the close frame.
        _ = far.shutdown().await;
        _ = near.shutdown().await;
        flight.finish(end);
        _ = timeout(FAREWELL_LIMIT, discard(&mut near)).await;
    } else {
        flight.finish(end);
    }
    drop(client);
}

async fn relay(
    near: &mut TcpStream,
    far: &mut TcpStream,
    [from_client, from_service]: [Bytes; 2],
    websocket: bool,
    told: impl Future<Output = ()>,
) -> End {
    let (near_read, near_write) = near.split();
    let (far_read, far_write) = far.split();
    let up = copy(near_read, far_write, &from_client);
    let down = async {
        if websocket {
            copy_frames(far_read, near_write, &from_service, told).await
        } else {
            copy(far_read, near_write, &from_service).await.map(|()| false)
        }
    };
    tokio::pin!(up, down);
    let half = tokio::select! {
        up_ended = &mut up => match up_ended {
            Ok(()) => timeout(HALF_CLOSED_LIMIT, down).await,
            Err(_) => return End::Answered,
        },
        told = &mut down => match told {
            Ok(false) => timeout(HALF_CLOSED_LIMIT, up).await.map(|ended| ended.map(|()| false)),
            other => Ok(other),
        },
    };
    if matches!(half, Ok(Ok(true))) { End::ToldToGo } else { End::Answered }
}

async fn copy(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, first: &[u8]) -> io::Result<()> {
    to.write_all(first).await?;
    let mut chunk = vec![0; CHUNK];
    loop {
        match from.read(&mut chunk).await? {
            0 => return to.shutdown().await,
            n => to.write_all(&chunk[..n]).await?,
        }
    }
}

/// Copies frames from the service. Once `told` resolves, ends the stream at the next boundary with a close frame, and
/// says so by `true`; `false` when the service ended it.
async fn copy_frames(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    first: &[u8],
    told: impl Future<Output = ()>,
) -> io::Result<bool> {
    let mut frames = Frames::default();
    frames.pass(first);
    to.write_all(first).await?;
    let mut chunk = vec![0; CHUNK];
    tokio::pin!(told);
    loop {
        let n = tokio::select! {
            biased;
            () = &mut told => break,
            n = from.read(&mut chunk) => n?,
        };
        if n == 0 {
            to.shutdown().await?;
            return Ok(false);
        }
        frames.pass(&chunk[..n]);
        to.write_all(&chunk[..n]).await?;
    }
    while !frames.at_boundary() {
        let n = from.read(&mut chunk).await?;
        if n == 0 {
            to.shutdown().await?;
            return Ok(false);
        }
        let rest = frames.pass_to_boundary(&chunk[..n]);
        to.write_all(&chunk[..rest]).await?;
    }
    if !frames.closing() {
        to.write_all(&GOING_AWAY).await?;
    }
    Ok(true)
}

async fn discard(stream: &mut TcpStream) {
    let mut chunk = vec![0; CHUNK];
    while stream.read(&mut chunk).await.is_ok_and(|n| n > 0) {}
}
