//! Limits up to the last share, profit through turns, ids and generations.

use super::*;

const LIMITS: Limits = Limits { max_position: 100, max_loss: 1000.0 };

/// All decisions so far and what follows from them.
#[derive(Default)]
struct Book {
    records: Vec<Record>,
    generations: BTreeMap<String, u64>,
    holdings: Holdings,
}

impl Book {
    fn decide(&self, order: &Order) -> Verdict {
        let past = Past {
            known: self.records.iter().find(|record| record.order.id == order.id).cloned(),
            highest: self.generations.get(order.fence()).copied(),
            holdings: self.holdings.clone(),
        };
        decide(order, &past, LIMITS, Some("blue"))
    }

    fn apply(&mut self, record: Record) {
        if let Some(generation) = record.order.generation {
            let highest = self.generations.entry(record.order.fence().to_owned()).or_default();
            *highest = generation.max(*highest);
        }
        if record.accepted {
            let held = self.holdings.entry(record.order.instrument.clone()).or_default();
            held.trade(&record.order, record.position);
        }
        self.records.push(record);
    }
}

fn order(id: &str, side: Side, quantity: u32, price: f64) -> Order {
    let instrument = "AAPL".to_owned();
    Order { id: id.to_owned(), instrument, side, quantity, price, generation: None, placed_by: None, placer: None }
}

fn place(book: &mut Book, order: &Order) -> Verdict {
    let verdict = book.decide(order);
    if let Verdict::Decided(record) = &verdict {
        book.apply(record.clone());
    }
    verdict
}

fn accepted(book: &mut Book, id: &str, side: Side, quantity: u32, price: f64) -> bool {
    match place(book, &order(id, side, quantity, price)) {
        Verdict::Decided(record) => record.accepted,
        other => panic!("not decided: {other:?}"),
    }
}

#[test]
fn the_position_limit_holds_both_ways_and_up_to_the_last_share() {
    let mut book = Book::default();
    assert!(accepted(&mut book, "1", Side::Buy, 100, 10.0));
    assert!(!accepted(&mut book, "2", Side::Buy, 1, 10.0));
    assert!(accepted(&mut book, "3", Side::Sell, 200, 10.0));
    assert!(!accepted(&mut book, "4", Side::Sell, 1, 10.0));
    assert!(!accepted(&mut book, "5", Side::Buy, 201, 10.0));
    assert_eq!(book.holdings["AAPL"].position, -100);
}

#[test]
fn beyond_the_loss_limit_only_closing_is_accepted() {
    let mut book = Book::default();
    assert!(accepted(&mut book, "1", Side::Buy, 50, 100.0));
    assert!(accepted(&mut book, "at-the-limit", Side::Buy, 1, 80.0));
    assert!(!accepted(&mut book, "beyond", Side::Buy, 1, 79.0));
    assert!(!accepted(&mut book, "turning-round", Side::Sell, 60, 79.0));
    assert!(accepted(&mut book, "closing", Side::Sell, 51, 79.0));
    assert!((total_profit(&book.holdings) + 1051.0).abs() < 1e-6, "{}", total_profit(&book.holdings));
    assert!(!accepted(&mut book, "realised-counts", Side::Buy, 1, 79.0));
}

#[test]
fn profit_follows_average_cost_through_a_turn() {
    let mut book = Book::default();
    assert!(accepted(&mut book, "1", Side::Buy, 10, 10.0));
    assert!(accepted(&mut book, "2", Side::Buy, 10, 20.0));
    assert!(accepted(&mut book, "3", Side::Sell, 30, 25.0));
    let held = book.holdings["AAPL"];
    assert_eq!((held.position, held.average_price, held.realised), (-10, 25.0, 200.0));
    assert!(accepted(&mut book, "4", Side::Buy, 5, 20.0));
    assert!((total_profit(&book.holdings) - 250.0).abs() < 1e-9);
}

#[test]
fn the_same_id_has_the_same_answer_and_no_second_effect() {
    let mut book = Book::default();
    let first = order("same", Side::Buy, 10, 10.0);
    assert!(matches!(place(&mut book, &first), Verdict::Decided(_)));
    let dearer = Order { price: 11.0, ..first.clone() };
    assert!(matches!(place(&mut book, &dearer), Verdict::Known(record) if record.position == 10));
    assert_eq!(place(&mut book, &Order { quantity: 11, ..first }), Verdict::Mismatch);
    assert_eq!(book.records.len(), 1);
}

#[test]
fn a_lower_generation_is_stale_across_the_slots_of_one_placer_only() {
    let mut book = Book::default();
    let from = |id: &str, placer: Option<&str>, slot: &str, generation| Order {
        placer: placer.map(str::to_owned),
        placed_by: Some(slot.to_owned()),
        generation: Some(generation),
        ..order(id, Side::Buy, 1, 10.0)
    };
    assert!(matches!(place(&mut book, &from("1", Some("s"), "green", 7)), Verdict::Decided(_)));
    assert_eq!(place(&mut book, &from("2", Some("s"), "blue", 6)), Verdict::Stale { highest: 7 });
    assert!(matches!(place(&mut book, &from("2", Some("s"), "green", 7)), Verdict::Decided(_)));
    assert!(matches!(place(&mut book, &from("3", Some("other"), "blue", 1)), Verdict::Decided(_)));
    assert!(matches!(place(&mut book, &from("4", None, "green", 2)), Verdict::Decided(_)));
    assert_eq!(place(&mut book, &from("5", None, "blue", 1)), Verdict::Stale { highest: 2 });
}

#[test]
fn what_is_no_order_is_refused_and_not_recorded() {
    let mut book = Book::default();
    let good = order("id", Side::Buy, 1, 1.0);
    let bad = [
        Order { id: String::new(), ..good.clone() },
        Order { id: "a b".to_owned(), ..good.clone() },
        Order { instrument: "aapl".to_owned(), ..good.clone() },
        Order { quantity: 0, ..good.clone() },
        Order { price: 0.0, ..good.clone() },
        Order { price: f64::NAN, ..good.clone() },
        Order { placed_by: Some("x".repeat(129)), ..good },
    ];
    for order in bad {
        assert!(matches!(place(&mut book, &order), Verdict::Malformed(_)), "{order:?}");
    }
    assert!(book.records.is_empty());
}
