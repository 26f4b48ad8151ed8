//! What nodes tell of their inventory: in order, with holes, late, too much, and lied.

use dunlin_shared::inventory::{
    Change as StockChange, Container, ContainerState, Happening, Item, Stock, StockHash, Unit, UnitState, What, Whole,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

const B: NodeKey = NodeKey(1);

fn unit(number: u32) -> Item {
    let name = format!("{number}.service").into();
    Item::Unit(Unit { name, state: UnitState::Failed, result: "exit-code".into(), since: None })
}

fn units(numbers: impl IntoIterator<Item = u32>) -> Stock {
    Stock::of(numbers.into_iter().map(unit))
}

fn web(state: ContainerState) -> Stock {
    let exit_code = (state == ContainerState::Exited).then_some(139);
    let container = Container { name: "web".into(), is_told: true, state, exit_code, ..Container::default() };
    Stock::of([Item::Container(Box::new(container))])
}

fn killed(count: u32) -> Happening {
    Happening { at: WallMs(7), key: None, what: What::HostOomKilled { count } }
}

fn inventory((lane, epoch, seq): (Lane, u32, u64), inventory: &Inventory) -> Event {
    let frame = Frame { id: FrameId::new(epoch, seq), kind: BodyKind::Inventory, body: inventory.encode() };
    Event::Frame { node: A, lane, frame }
}

fn whole(seq: u64, stock: &Stock, happened: Vec<Happening>) -> Event {
    inventory((Lane::Live, 1, seq), &Inventory::Whole(stock.to_whole(happened)))
}

fn change(seq: u64, before: &Stock, after: &Stock) -> Event {
    inventory((Lane::Live, 1, seq), &Inventory::Change(changed(before, after)))
}

/// As an agent tells it: containers apart, what happened follows from both.
fn changed(before: &Stock, after: &Stock) -> StockChange {
    let happened = after.happened_since(before, WallMs(7), |_| true);
    let same = StockChange { before: before.hash(), after: after.hash(), ..StockChange::default() };
    StockChange { happened, ..after.change_from(before).unwrap_or(same) }
}

/// Kinds of the events, the late ones with a mark.
fn told(effects: &[Effect]) -> Vec<String> {
    let told = |effect: &Effect| match effect {
        Effect::Happened { happening, is_late, .. } => {
            Some(format!("{}{}", happening.what.as_str(), if *is_late { " late" } else { "" }))
        }
        Effect::Noisy { count, .. } => Some(format!("noisy {count}")),
        Effect::InventoryAsked { .. } => Some(String::from("asked")),
        _ => None,
    };
    effects.iter().filter_map(told).collect()
}

fn line(stock: &Stock) -> Line {
    let mut line = Line::new();
    line.put(hello(A, 1, None));
    assert_eq!(told(&line.put(whole(1, stock, Vec::new()))), [""; 0], "the first stock is no news");
    line
}

#[test]
fn a_change_builds_on_what_was_told_before_it() {
    let (one, two) = (units([1]), units([2]));
    let mut line = line(&one);
    assert_eq!(told(&line.put(change(2, &one, &two))), ["unit.recovered", "unit.failed"]);
    assert_eq!(line.stocks[&A], two);
    let (mark, noise) = line.engine.stock(A);
    assert_eq!((mark.state, mark.id, mark.hash, noise), (StockState::Held, Some(FrameId::new(1, 2)), two.hash(), None));
}

#[test]
fn what_was_missed_is_asked_for_once_until_the_whole_comes() {
    let [one, two, three, four] = [1, 2, 3, 4].map(|number| units([number]));
    let mut line = line(&one);
    assert_eq!(told(&line.put(change(3, &two, &three))), ["unit.recovered", "unit.failed", "asked"]);
    assert_eq!(line.engine.stock(A).0.state, StockState::Lost);
    assert_eq!(told(&line.put(change(4, &three, &four))), ["unit.recovered", "unit.failed"], "asked once");
    let missed = told(&line.put(whole(5, &four, Vec::new())));
    assert_eq!(missed, ["unit.recovered"], "what is told already is not told again");
    assert_eq!((line.engine.stock(A).0.state, &line.stocks[&A]), (StockState::Held, &four));
    assert_eq!(told(&line.put(change(7, &two, &one))).last().map(String::as_str), Some("asked"));
}

#[test]
fn of_a_node_that_told_nothing_yet_a_change_asks_for_all() {
    let mut line = Line::new();
    line.put(hello(A, 1, None));
    assert_eq!(told(&line.put(change(3, &units([1]), &units([2])))).last().map(String::as_str), Some("asked"));
    assert!(line.stocks.is_empty() && line.engine.stock(A).0.state == StockState::None);
    assert_eq!(told(&line.put(whole(4, &units([2]), Vec::new()))), [""; 0], "the first stock is no news");
    assert_eq!(line.stocks[&A], units([2]));
}

#[test]
fn a_whole_that_replaces_a_stock_is_compared_with_it_unless_it_tells_itself() {
    let (up, down) = (web(ContainerState::Running), web(ContainerState::Exited));
    let mut silent = line(&up);
    let next_run = |happened| inventory((Lane::Backlog, 2, 0), &Inventory::Whole(down.to_whole(happened)));
    assert_eq!(told(&silent.put(next_run(Vec::new()))), ["container.crashed late"]);
    let mut telling = line(&up);
    assert_eq!(told(&telling.put(next_run(vec![killed(1)]))), ["host.oom_killed late"]);
    assert_eq!(telling.stocks[&A], down);
}

#[test]
fn older_frames_tell_what_happened_and_change_nothing() {
    let (one, two) = (units([1]), units([2]));
    let mut line = line(&one);
    line.put(change(5, &one, &two));
    let late = |seq| {
        let mut late = changed(&one, &two);
        late.happened.push(killed(1));
        inventory((Lane::Backlog, 1, seq), &Inventory::Change(late))
    };
    assert_eq!(told(&line.put(late(4))), ["unit.recovered late", "unit.failed late", "host.oom_killed late"]);
    assert_eq!(line.stocks[&A], two);
    line.put(whole(9, &two, Vec::new()));
    assert_eq!(told(&line.put(late(8))), ["host.oom_killed late"], "two stocks were compared and told the rest");
    assert_eq!(told(&line.put(inventory((Lane::Backlog, 1, 7), &Inventory::Whole(Whole::default())))), [""; 0]);
    assert_eq!(line.stocks[&A], two);
}

#[test]
fn a_new_session_asks_again_and_a_new_run_tells_by_itself() {
    let [one, two, three] = [1, 2, 3].map(|number| units([number]));
    let mut lost = line(&one);
    lost.put(change(3, &two, &three));
    assert_eq!(told(&lost.put(hello(A, 1, None))), ["asked"]);
    assert_eq!(told(&lost.put(hello(A, 2, run(1, 3, 4)))), [""; 0]);
    lost.restart();
    assert_eq!(told(&lost.put(hello(A, 2, None))), ["asked"]);

    let mut held = line(&one);
    assert_eq!(told(&held.put(hello(A, 1, None))), [""; 0]);

    let mut new = Line::new();
    assert_eq!(told(&new.put(hello(A, 1, None))), [""; 0], "nobody knew it, and it tells by itself");
    assert_eq!(told(&new.put(hello(A, 1, None))), ["asked"], "it went on, and what it told is not here");
}

#[test]
fn a_node_tells_200_events_then_20_a_minute_and_the_rest_as_one() {
    let mut line = line(&units([1]));
    let mut seq = 1;
    let mut flood = |line: &mut Line, count: u32| {
        seq += 1;
        let flood = StockChange { happened: vec![killed(1); count as usize], ..StockChange::default() };
        let hash = line.engine.stock(A).0.hash;
        let flood = StockChange { before: hash, after: hash, ..flood };
        told(&line.put(inventory((Lane::Live, 1, seq), &Inventory::Change(flood)))).len()
    };
    assert_eq!((flood(&mut line, 150), flood(&mut line, 150)), (150, 50));
    assert_eq!(told(&line.put(Event::Tick { elapsed_ms: 1_000, paused_ms: 0 })), [""; 0]);
    line.at = line.at.plus(60_000);
    assert_eq!(told(&line.put(Event::Tick { elapsed_ms: 1_000, paused_ms: 0 })), ["noisy 100"]);
    assert_eq!(flood(&mut line, 150), 20);
    line.restart();
    line.at = line.at.plus(60_000);
    assert_eq!(told(&line.put(Event::Tick { elapsed_ms: 1_000, paused_ms: 0 })), ["noisy 130"], "kept over a restart");
    assert_eq!(told(&line.put(Event::Tick { elapsed_ms: 1_000, paused_ms: 0 })), [""; 0]);
    assert_eq!(flood(&mut line, 150), 20, "so is the budget");
}

#[test]
fn a_wall_clock_that_jumps_neither_stops_events_nor_opens_the_gate() {
    let mut line = line(&units([1]));
    let hash = line.engine.stock(A).0.hash;
    let flood = StockChange { before: hash, after: hash, happened: vec![killed(1); 250], ..StockChange::default() };
    for (seq, jump_ms, most) in [(2, i64::MIN, 200), (3, i64::MAX, 200), (4, -1, 0), (5, i64::MIN, 200)] {
        line.at = line.at.plus(jump_ms);
        let event = inventory((Lane::Live, 1, seq), &Inventory::Change(flood.clone()));
        assert!(told(&line.put(event)).len() <= most, "after {jump_ms} ms");
    }
    line.at = line.at.plus(600_000);
    let event = inventory((Lane::Live, 1, 6), &Inventory::Change(flood));
    assert_eq!(told(&line.put(event)).len(), 200, "ten minutes later all is as ever");
}

#[test]
fn a_hash_that_lies_costs_the_node_one_question_each_time_it_was_believed() {
    let one = units([1]);
    let mut line = line(&one);
    let lie = |seq| {
        let lie =
            StockChange { before: one.hash(), after: StockHash(1), items: vec![unit(2)], ..StockChange::default() };
        inventory((Lane::Live, 1, seq), &Inventory::Change(lie))
    };
    assert_eq!(told(&line.put(lie(2))), ["asked"]);
    assert_eq!(told(&line.put(lie(3))), [""; 0]);
    assert_eq!(line.engine.stock(A).0.state, StockState::Lost);
    let empty = StockChange { before: one.hash(), after: StockHash(9), ..StockChange::default() };
    assert_eq!(told(&line.put(whole(4, &one, Vec::new()))), ["unit.recovered"]);
    assert_eq!(told(&line.put(inventory((Lane::Live, 1, 5), &Inventory::Change(empty)))), ["asked"]);
}

#[test]
fn what_could_not_be_logged_is_taken_when_it_comes_again() {
    let mut line = line(&units([1]));
    let event = change(2, &units([1]), &units([2]));
    let record = Record { at: line.at, event: event.clone() };
    let effects = line.engine.apply_unlogged(&record, None);
    assert_eq!(told(&effects), [""; 0]);
    assert_eq!(told(&line.put(event)), ["unit.recovered", "unit.failed"]);
}

#[test]
fn what_cannot_be_read_is_no_change_and_a_forgotten_node_leaves_nothing() {
    let mut line = line(&units([1]));
    line.put(Event::Frame {
        node: A,
        lane: Lane::Live,
        frame: Frame { id: FrameId::new(1, 2), kind: BodyKind::Inventory, body: vec![200, 1, 2] },
    });
    assert_eq!(line.engine.stock(A).0.hash, units([1]).hash());
    assert_eq!(line.engine.stock(B), (StockMark::default(), None), "of nobody nothing is known");
    let flood = StockChange { happened: vec![killed(1); 256], ..changed(&units([1]), &units([1])) };
    line.put(inventory((Lane::Live, 1, 3), &Inventory::Change(flood)));
    assert_eq!(line.engine.stock(A).1.map(|noise| noise.count), Some(56));
    line.forget(A);
    assert_eq!(line.engine.stock(A), (StockMark::default(), None));
    assert_eq!(line.engine.mistrust(A, true), []);
    assert_eq!(line.engine.happened(line.at, A, vec![killed(1)], false), []);
}

#[test]
fn ten_thousand_nodes_take_half_a_megabyte() {
    assert!(size_of::<StockMark>() <= 50, "{}", size_of::<StockMark>());
}

/// What an agent and its line do.
#[derive(Clone, Debug)]
enum Step {
    /// It tells the stock of these units, as it tells it next; or the frame is lost, or comes later.
    Tell {
        units: Vec<u32>,
        way: Way,
        floods: bool,
    },
    Lie {
        after: u64,
    },
    Greet {
        next_run: bool,
    },
    Start,
    Late,
    Tick {
        ms: i64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Live,
    Lost,
    Later,
}

fn step() -> impl Strategy<Value = Step> {
    let way = prop_oneof![6 => Just(Way::Live), 1 => Just(Way::Lost), 1 => Just(Way::Later)];
    prop_oneof![
        12 => (prop::collection::vec(0u32..9, 0..5), way, prop::bool::weighted(0.1))
            .prop_map(|(units, way, floods)| Step::Tell { units, way, floods }),
        1 => any::<u64>().prop_map(|after| Step::Lie { after }),
        2 => any::<bool>().prop_map(|next_run| Step::Greet { next_run }),
        1 => Just(Step::Start),
        2 => Just(Step::Late),
        3 => prop_oneof![8 => 0i64..40_000, 1 => Just(HOUR_MS), 1 => Just(-HOUR_MS)].prop_map(|ms| Step::Tick { ms }),
    ]
}

/// The log of it. `asks` is what the agent heard: it tells the whole then.
fn play(line: &mut Line, steps: &[Step]) -> Vec<Record> {
    let (mut log, mut stock, mut is_known, mut later) = (Vec::new(), Stock::default(), false, Vec::new());
    let (mut epoch, mut seq) = (1, 0);
    for step in steps {
        let event = match step.clone() {
            Step::Tell { units: numbers, way, floods } => {
                let next = units(numbers);
                let mut told = if is_known {
                    Inventory::Change(changed(&stock, &next))
                } else {
                    Inventory::Whole(next.to_whole(Vec::new()))
                };
                if let (true, Inventory::Change(change)) = (floods, &mut told) {
                    change.happened = vec![killed(1); 256];
                }
                (stock, is_known, seq) = (next, true, seq + 1);
                match way {
                    Way::Live => inventory((Lane::Live, epoch, seq), &told),
                    Way::Lost => continue,
                    Way::Later => {
                        later.push(inventory((Lane::Backlog, epoch, seq), &told));
                        continue;
                    }
                }
            }
            Step::Lie { after } => {
                seq += 1;
                let lie = StockChange { before: stock.hash(), after: StockHash(after), ..StockChange::default() };
                inventory((Lane::Live, epoch, seq), &Inventory::Change(lie))
            }
            Step::Greet { next_run: true } => {
                (epoch, seq, is_known) = (epoch + 1, 0, false);
                hello(A, epoch, run(epoch - 1, 9, 10))
            }
            Step::Greet { next_run: false } => hello(A, epoch, None),
            Step::Start => Event::Started,
            Step::Late => match later.pop() {
                Some(event) => event,
                None => continue,
            },
            Step::Tick { ms } => {
                line.at = line.at.plus(ms);
                Event::Tick { elapsed_ms: ms.unsigned_abs() % 9_000, paused_ms: 0 }
            }
        };
        log.push(Record { at: line.at, event: event.clone() });
        is_known &= !told(&line.put(event)).contains(&String::from("asked"));
    }
    log
}

fn without_questions(effects: Vec<Effect>) -> Vec<Effect> {
    effects.into_iter().filter(|effect| !matches!(effect, Effect::InventoryAsked { .. })).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256, rng_seed: RngSeed::Fixed(0xd0_0b1e), failure_persistence: None, ..ProptestConfig::default()
    })]

    /// Whatever was lost or came late: an agent that answers leads to its stock.
    #[test]
    fn what_is_held_is_what_the_agent_has_once_it_answered(
        steps in prop::collection::vec(step(), 0..60),
        last in prop::collection::vec(0u32..9, 0..5),
    ) {
        let mut line = Line::new();
        line.put(hello(A, 1, None));
        play(&mut line, &steps);
        let (mark, _) = line.engine.stock(A);
        if mark.state == StockState::Held {
            prop_assert_eq!(line.stocks[&A].hash(), mark.hash);
        }
        let last = units(last);
        let next = inventory((Lane::Live, 99, 1), &Inventory::Whole(last.to_whole(Vec::new())));
        line.put(next);
        prop_assert_eq!(&line.stocks[&A], &last);
        prop_assert_eq!(line.engine.stock(A).0.hash, last.hash());
    }

    #[test]
    fn a_replay_from_the_position_on_disk_is_the_engine_that_went_on(
        steps in prop::collection::vec(step(), 0..60),
        cut: prop::sample::Index,
    ) {
        let mut whole = Line::new();
        let log = play(&mut whole, &steps);
        let cut = cut.index(log.len() + 1);
        let (mut whole, mut replayed) = (Line::new(), Line::new());
        for record in &log[..cut] {
            (whole.at, replayed.at) = (record.at, record.at);
            prop_assert_eq!(whole.put(record.event.clone()), replayed.put(record.event.clone()));
        }
        replayed.reopen();
        for record in &log[cut..] {
            (whole.at, replayed.at) = (record.at, record.at);
            let (went_on, again) = (whole.put(record.event.clone()), replayed.put(record.event.clone()));
            let happened = |effects| -> Vec<Effect> {
                let of_stock = |effect: &Effect| !matches!(effect, Effect::NodeState { .. });
                without_questions(effects).into_iter().filter(of_stock).collect()
            };
            prop_assert_eq!(happened(went_on), happened(again));
        }
        whole.put(Event::Started);
        replayed.put(Event::Started);
        prop_assert_eq!(whole.engine.stock(A), replayed.engine.stock(A));
        prop_assert_eq!(&whole.stocks, &replayed.stocks);
        prop_assert_eq!(told(&whole.put(hello(A, 50, None))), told(&replayed.put(hello(A, 50, None))));
    }
}
