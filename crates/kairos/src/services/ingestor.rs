//! The market-data ingestor: an exclusive worker which produces ticks with strictly increasing numbers.
//!
//! Numbers are reserved in blocks in the state file before they are used, so that a crash skips some and repeats none.
//! A passive process answers from the state file, which the active one keeps up to date.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Page, Parts, StartError};
use crate::activation::{Activation, Worker};
use crate::config::{Config, is_instrument};
use crate::metrics::Metrics;
use crate::server::{App, chain};
use crate::state::{self, StateError};
use crate::walk;

/// Ticks kept for readers: with three instruments and ten rounds a second, more than two minutes.
const RING: usize = 4096;
/// Numbers reserved at a time; as many may be skipped by a crash.
const BLOCK: u64 = 1000;
/// Ticks between two saves: a passive reader is at most so far behind.
const SAVE_EVERY: u64 = 50;

/// Why a price file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PricesError {
    #[error("read the price file {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("line {line} of the price file {} is {text:?}: allowed is INSTRUMENT,PRICE", path.display())]
    Line { path: PathBuf, line: usize, text: String },
    #[error("the price file {} has no prices", path.display())]
    Empty { path: PathBuf },
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Price {
    price: f64,
    seq: u64,
}

/// One tick, as readers get it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tick {
    pub(crate) seq: u64,
    pub(crate) instrument: String,
    pub(crate) price: f64,
}

/// What `/ticks` answers.
#[expect(clippy::struct_field_names, reason = "the fields are the names in the answer")]
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ticks {
    pub(crate) ticks: Vec<Tick>,
    /// The highest number given out so far.
    pub(crate) last_seq: u64,
    /// Whether this process produces ticks; a passive one may be behind.
    pub(crate) active: bool,
}

/// The state file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Saved {
    last_seq: u64,
    /// No number up to this one may be used again by whoever did not write this file.
    reserved: u64,
    /// Lines of the price file replayed so far.
    row: usize,
    prices: BTreeMap<String, Price>,
}

#[derive(Debug, Default)]
struct Market {
    now: Saved,
    ring: VecDeque<Tick>,
    unsaved: u64,
}

enum Source {
    Walk { seed: u64, instruments: Vec<String> },
    Replay(Vec<(String, f64)>),
}

struct Ingestor {
    source: Source,
    path: Option<PathBuf>,
    metrics: Metrics,
    market: Mutex<Market>,
}

pub(super) fn build(app: &Arc<App>) -> Result<Parts, StartError> {
    app.metrics.add("kairos_ticks_total", 0);
    let ingestor = Arc::new(Ingestor::new(&app.config, app.metrics.clone())?);
    let activation = Arc::new(Activation::new(&app.config, Arc::clone(&ingestor) as Arc<dyn Worker>));
    let shared = Shared { ingestor: Arc::clone(&ingestor), activation: Arc::clone(&activation) };
    let router = Router::new().route("/prices", get(prices)).route("/ticks", get(ticks)).with_state(shared);
    let work = work(Arc::clone(&ingestor), Arc::clone(&activation), app.config.tick);
    // A damaged state should stop the start and not the activation.
    let prepare = Box::new(move || ingestor.saved().map(|_| ()).map_err(StartError::State));
    Ok(Parts { router, activation: Some(activation), prepare, background: vec![Box::pin(work)] })
}

/// One round of ticks per interval for as long as the process is active; ends with the process.
async fn work(ingestor: Arc<Ingestor>, activation: Arc<Activation>, tick: Duration) {
    let mut interval = tokio::time::interval(tick);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let _permit = activation.permit().await;
        if let Err(error) = tokio::task::block_in_place(|| ingestor.round()) {
            tracing::error!(error = chain(&error), "no ticks without a reserved number");
        }
    }
}

impl Ingestor {
    fn new(config: &Config, metrics: Metrics) -> Result<Self, PricesError> {
        let source = match &config.price_file {
            Some(path) => Source::Replay(read_prices(path)?),
            None => Source::Walk { seed: config.seed, instruments: config.instruments.clone() },
        };
        let path = config.state_dir.as_ref().map(|directory| directory.join("market-data.json"));
        Ok(Self { source, path, metrics, market: Mutex::default() })
    }

    fn market(&self) -> MutexGuard<'_, Market> {
        // Every change is complete before the next call that could panic.
        self.market.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn saved(&self) -> Result<Option<Saved>, StateError> {
        self.path.as_deref().map_or(Ok(None), state::load)
    }

    /// One tick per instrument of the walk, or the next line of the file, which begins again after its end.
    fn round(&self) -> Result<(), StateError> {
        let mut market = self.market();
        match &self.source {
            Source::Walk { seed, instruments } => {
                for instrument in instruments {
                    let before = market.now.prices.get(instrument).map(|last| last.price);
                    let before = before.unwrap_or_else(|| walk::first_price(*seed, instrument));
                    let price = walk::next_price(*seed, market.now.last_seq + 1, before);
                    self.tick(&mut market, instrument, price)?;
                }
            }
            Source::Replay(rows) => {
                let (instrument, price) = &rows[market.now.row % rows.len()];
                self.tick(&mut market, instrument, *price)?;
                market.now.row += 1;
            }
        }
        if market.unsaved >= SAVE_EVERY {
            self.save(&mut market)?;
        }
        Ok(())
    }

    fn tick(&self, market: &mut Market, instrument: &str, price: f64) -> Result<(), StateError> {
        let seq = market.now.last_seq + 1;
        if seq > market.now.reserved {
            let before = market.now.reserved;
            market.now.reserved = seq + BLOCK - 1;
            if let Err(error) = self.save(market) {
                market.now.reserved = before;
                return Err(error);
            }
        }
        market.now.last_seq = seq;
        market.now.prices.insert(instrument.to_owned(), Price { price, seq });
        market.ring.push_back(Tick { seq, instrument: instrument.to_owned(), price });
        if market.ring.len() > RING {
            market.ring.pop_front();
        }
        market.unsaved += 1;
        self.metrics.add("kairos_ticks_total", 1);
        Ok(())
    }

    fn save(&self, market: &mut Market) -> Result<(), StateError> {
        if let Some(path) = &self.path {
            state::save(path, &market.now)?;
        }
        market.unsaved = 0;
        Ok(())
    }

    /// What a reader sees: memory while active, else the file, when that is ahead.
    fn seen(&self, active: bool) -> Saved {
        let own = self.market().now.clone();
        if active {
            return own;
        }
        match self.saved() {
            Ok(Some(saved)) if saved.last_seq > own.last_seq => saved,
            Ok(_) => own,
            Err(error) => {
                tracing::warn!(error = chain(&error), "answering from memory");
                own
            }
        }
    }

    fn ticks(&self, page: Page) -> Vec<Tick> {
        let market = self.market();
        market.ring.iter().filter(|tick| tick.seq > page.since).take(page.limit).cloned().collect()
    }
}

impl Worker for Ingestor {
    fn resume(&self) -> Result<(), StateError> {
        let Some(mut saved) = self.saved()? else { return Ok(()) };
        let mut market = self.market();
        // After a flush both are equal; after a crash the numbers between may have been used.
        saved.last_seq = saved.reserved.max(saved.last_seq).max(market.now.last_seq);
        saved.reserved = saved.last_seq;
        market.now = saved;
        Ok(())
    }

    fn flush(&self) -> Result<(), StateError> {
        let mut market = self.market();
        market.now.reserved = market.now.last_seq;
        self.save(&mut market)
    }
}

fn read_prices(path: &Path) -> Result<Vec<(String, f64)>, PricesError> {
    let text = std::fs::read_to_string(path).map_err(|source| PricesError::Read { path: path.to_owned(), source })?;
    let mut rows = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || (index == 0 && line == "instrument,price") {
            continue;
        }
        let row = line.split_once(',').and_then(|(name, price)| Some((name.trim(), price.trim().parse().ok()?)));
        match row {
            Some((name, price)) if is_instrument(name) && price > 0.0 && price <= 1e9 => {
                rows.push((name.to_owned(), price));
            }
            _ => return Err(PricesError::Line { path: path.to_owned(), line: index + 1, text: line.to_owned() }),
        }
    }
    if rows.is_empty() { Err(PricesError::Empty { path: path.to_owned() }) } else { Ok(rows) }
}

#[derive(Clone)]
struct Shared {
    ingestor: Arc<Ingestor>,
    activation: Arc<Activation>,
}

async fn prices(State(shared): State<Shared>) -> Json<Value> {
    let active = shared.activation.view().active;
    let seen = tokio::task::block_in_place(|| shared.ingestor.seen(active));
    Json(json!({"prices": seen.prices, "last_seq": seen.last_seq, "active": active}))
}

async fn ticks(State(shared): State<Shared>, Query(page): Query<Page>) -> Json<Ticks> {
    let active = shared.activation.view().active;
    let ticks = shared.ingestor.ticks(page);
    let last_seq = tokio::task::block_in_place(|| shared.ingestor.seen(active)).last_seq;
    Json(Ticks { ticks, last_seq, active })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Service;

    fn ingestor(variables: &[(&str, &str)]) -> Result<Ingestor, PricesError> {
        let mut values = BTreeMap::from([("PORT".to_owned(), "0".to_owned())]);
        values.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let config = Config::from_values(Service::MarketDataIngestor, &values).expect("valid");
        Ingestor::new(&config, Metrics::default())
    }

    fn all(ingestor: &Ingestor) -> Vec<Tick> {
        ingestor.ticks(Page { since: 0, limit: usize::MAX })
    }

    #[test]
    fn no_number_is_used_twice_whether_the_one_before_crashed_or_flushed() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let variables = [("STATE_DIR", directory.path().to_str().expect("UTF-8"))];
        let mut highest = 0;
        for crash in [true, false, true, true, false, false] {
            let ingestor = ingestor(&variables).expect("built");
            ingestor.resume().expect("resumed");
            for _ in 0..7 {
                ingestor.round().expect("a round");
            }
            let ticks = all(&ingestor);
            assert!(ticks[0].seq > highest, "{} after {highest}", ticks[0].seq);
            assert!(ticks.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1));
            highest = ticks[20].seq;
            if !crash {
                ingestor.flush().expect("flushed");
                assert_eq!(self::ingestor(&variables).expect("built").seen(false).last_seq, highest);
            }
        }
    }

    #[test]
    fn the_ring_keeps_the_latest_ticks_only() {
        let ingestor = ingestor(&[("INSTRUMENTS", "AAPL")]).expect("built");
        for _ in 0..RING + 10 {
            ingestor.round().expect("a round");
        }
        let ticks = all(&ingestor);
        assert_eq!((ticks.len(), ticks[0].seq), (RING, 11));
        let page = ingestor.ticks(Page { since: 100, limit: 2 });
        assert_eq!(page.iter().map(|tick| tick.seq).collect::<Vec<_>>(), [101, 102]);
    }

    #[test]
    fn a_price_file_is_replayed_line_by_line_and_begins_again() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("prices.csv");
        std::fs::write(&path, "instrument,price\nAAPL,1.5\n\nMSFT, 2\n").expect("written");
        let variables = [("PRICE_FILE", path.to_str().expect("UTF-8"))];
        let replay = ingestor(&variables).expect("built");
        for _ in 0..3 {
            replay.round().expect("a round");
        }
        let prices: Vec<(String, f64)> = all(&replay).into_iter().map(|tick| (tick.instrument, tick.price)).collect();
        let row = |name: &str, price| (name.to_owned(), price);
        assert_eq!(prices, [row("AAPL", 1.5), row("MSFT", 2.0), row("AAPL", 1.5)]);

        for (bad, line) in [("AAPL,1\nAAPL;2\n", 2), ("aapl,1", 1), ("AAPL,-1", 1), ("AAPL,NaN", 1)] {
            std::fs::write(&path, bad).expect("written");
            assert!(matches!(ingestor(&variables), Err(PricesError::Line { line: l, .. }) if l == line), "{bad}");
        }
        std::fs::write(&path, "\n").expect("written");
        assert!(matches!(ingestor(&variables), Err(PricesError::Empty { .. })));
    }
}
