//! Limits, damaged input, what happened between two stocks, and changes that lead from any stock to any other.

use std::net::{IpAddr, Ipv4Addr};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::limits::{CONTAINERS_MAX, FACT_BYTES_MAX, HAPPENINGS_MAX, ITEMS_MAX, PORTS_MAX, STOCK_BYTES_MAX};
use crate::time::WallMs;

fn port(port: u16) -> Item {
    let address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    Item::Port(Port {
        place: Place { network: None, protocol: Protocol::Tcp, address, port },
        scope: Scope::of(address),
        process: Some("sshd".into()),
        container: None,
        user: None,
    })
}

fn container(name: &str) -> Container {
    Container { name: name.into(), id: "abc".into(), is_told: true, started: Some(WallMs(1)), ..Container::default() }
}

fn whats(before: &Container, after: &Container) -> Vec<&'static str> {
    let item = |container: &Container| Item::Container(Box::new(container.clone()));
    let found = happenings(Some(&item(before)), Some(&item(after)), WallMs(0));
    found.iter().map(|happening| happening.what.as_str()).collect()
}

#[test]
fn a_field_above_its_limit_is_refused_by_name() {
    let facts = Facts { kernel: "k".repeat(300), ..Facts::default() };
    let error = Inventory::decode(&Inventory::Facts(facts).encode()).expect_err("too long");
    assert_eq!(error, InventoryError::TooLong { field: "kernel", bytes: 300, max: FACT_BYTES_MAX });
    let long = Item::Container(Box::new(Container { image: "i".repeat(300).into(), ..container("web") }));
    let whole = Whole { items: vec![long], happened: Vec::new() };
    let error = Inventory::decode(&Inventory::Whole(whole).encode()).expect_err("too long");
    assert_eq!(error, InventoryError::TooLong { field: "a container's text", bytes: 300, max: FACT_BYTES_MAX });
}

#[test]
fn bytes_after_the_end_are_refused() {
    let mut bytes = Inventory::Facts(Facts::default()).encode();
    bytes.push(0);
    assert_eq!(Inventory::decode(&bytes), Err(InventoryError::Malformed));
}

#[test]
fn what_finds_no_room_is_counted() {
    let mut stock = Stock::default();
    let ports = u16::try_from(PORTS_MAX).expect("ports are fewer than their numbers");
    assert!((0..ports).all(|number| stock.put(port(number))));
    assert!(!stock.put(port(ports)) && stock.put(port(0)), "one that stands is put in its own place");
    for number in 0..=CONTAINERS_MAX {
        let labels = (0..16).map(|n| (format!("{n}").into(), "v".repeat(255).into())).collect();
        stock.put(Item::Container(Box::new(Container { labels, ..container(&number.to_string()) })));
    }
    let [containers, ports, ..] = stock.left_out();
    assert!(ports == 1 && containers > 0, "{:?}", stock.left_out());
    let whole = Inventory::Whole(stock.to_whole(Vec::new())).encode();
    assert!(whole.len() <= STOCK_BYTES_MAX + 16, "{}", whole.len());
    Inventory::decode(&whole).expect("a stock that is full is taken");
}

#[test]
fn a_change_on_another_stock_is_refused() {
    let (one, two) = (Stock::of([port(1)]), Stock::of([port(1), port(2)]));
    let change = two.change_from(&one).expect("they differ");
    assert_eq!(Stock::default().apply(change.clone()), Err(Mismatch));
    let wrong = Change { gone: vec![port(1).key()], ..change.clone() };
    assert_eq!(one.clone().apply(wrong), Err(Mismatch));
    let mut stock = one;
    assert_eq!((stock.apply(change), stock), (Ok(()), two));
}

#[test]
fn a_stop_that_was_asked_for_is_no_crash() {
    let up = container("web");
    let down = Container { state: ContainerState::Exited, exit_code: Some(137), ..up.clone() };
    assert_eq!(whats(&up, &down), ["container.crashed"]);
    assert_eq!(whats(&up, &Container { is_stop_asked: true, ..down.clone() }), ["container.stopped"]);
    assert_eq!(whats(&up, &Container { exit_code: Some(0), ..down.clone() }), ["container.stopped"]);
    let killed = Container { is_oom_killed: true, ..down.clone() };
    assert_eq!(whats(&up, &killed), ["container.oom_killed", "container.crashed"]);
    assert_eq!(whats(&up, &Container { is_told: false, exit_code: None, ..down }), ["container.stopped"]);
}

#[test]
fn a_run_that_began_anew_is_a_restart_and_a_first_run_a_start() {
    let created = Container { state: ContainerState::Created, started: None, ..container("web") };
    let up = container("web");
    assert_eq!(whats(&created, &up), ["container.started"]);
    let again = Container { started: Some(WallMs(2)), restarts: 1, ..up.clone() };
    assert_eq!(whats(&up, &again), ["container.restarted"]);
    let down = Container { state: ContainerState::Restarting, exit_code: Some(1), ..up.clone() };
    assert_eq!(whats(&up, &down), ["container.crashed"]);
    assert_eq!(whats(&down, &again), ["container.restarted"]);
    let replaced = Container { id: "def".into(), image: "web:2".into(), ..up.clone() };
    let before = Container { image: "web:1".into(), ..up };
    assert_eq!(whats(&before, &replaced), ["container.image_changed", "container.restarted"]);
}

#[test]
fn pause_and_health_are_told_while_it_is_up() {
    let up = container("web");
    let paused = Container { state: ContainerState::Paused, ..up.clone() };
    assert_eq!((whats(&up, &paused), whats(&paused, &up)), (vec!["container.paused"], vec!["container.unpaused"]));
    let sick = Container { health: Health::Unhealthy, ..up.clone() };
    assert_eq!((whats(&up, &sick), whats(&sick, &up)), (vec!["container.unhealthy"], vec![]));
}

#[test]
fn what_opened_and_what_closed_are_told_of_two_stocks() {
    let (before, after) = (Stock::of([port(1), port(2)]), Stock::of([port(2), port(3)]));
    let happened = after.happened_since(&before, WallMs(7), |_| true);
    let told: Vec<_> = happened.iter().map(|one| (one.key.clone(), one.what.as_str())).collect();
    assert_eq!(told, [(Some(port(1).key()), "port.closed"), (Some(port(3).key()), "port.opened")]);
    assert!(after.happened_since(&before, WallMs(7), |_| false).is_empty());
}

#[test]
fn a_stock_that_may_take_less_takes_less_and_counts_the_rest() {
    let mut stock = Stock::within(1_000);
    let put = (0..100).filter(|&number| stock.put(port(number))).count();
    let bytes = stock.items().map(|item| postcard::to_stdvec(item).expect("encoded").len()).sum::<usize>();
    assert!((900..=1_000).contains(&bytes), "{bytes} bytes");
    assert_eq!((stock.len(), stock.left_out()[1]), (put, 100 - u32::try_from(put).expect("few")));
}

#[test]
fn a_list_without_end_is_refused_and_never_held() {
    let group = |_| Item::Group(Group { name: "".into(), container: None, unit: None, user: None });
    let happening = |_| Happening { at: WallMs(0), key: None, what: What::PortClosed };
    let many = 200_000;
    let whole = |items, happened| Inventory::Whole(Whole { items, happened }).encode();
    let gone = Change { gone: vec![Key::Group("".into()); many], ..Change::default() };
    for (body, what, max) in [
        (whole((0..many).map(group).collect(), Vec::new()), "items", ITEMS_MAX),
        (whole(Vec::new(), (0..many).map(happening).collect()), "happenings", HAPPENINGS_MAX),
        (Inventory::Change(gone).encode(), "items that are gone", ITEMS_MAX),
    ] {
        // One above what is allowed tells that there were more, and is all that is kept.
        assert_eq!(Inventory::decode(&body), Err(InventoryError::TooMany { what, count: max + 1, max }));
    }
}

#[test]
fn a_scope_says_from_where_an_address_is_reached() {
    let cases = [
        ("0.0.0.0", Scope::Any),
        ("::", Scope::Any),
        ("::ffff:0.0.0.0", Scope::Any),
        ("127.0.0.53", Scope::Loopback),
        ("::1", Scope::Loopback),
        ("::ffff:127.0.0.1", Scope::Loopback),
        ("10.1.2.3", Scope::Private),
        ("172.16.0.1", Scope::Private),
        ("192.168.1.1", Scope::Private),
        ("100.100.1.1", Scope::Private),
        ("169.254.1.1", Scope::Private),
        ("fd00::1", Scope::Private),
        ("fe80::1", Scope::Private),
        ("224.0.0.251", Scope::Private),
        ("255.255.255.255", Scope::Private),
        ("ff02::fb", Scope::Private),
        ("8.8.8.8", Scope::Public),
        ("100.128.0.1", Scope::Public),
        ("2001:db8::1", Scope::Public),
    ];
    for (address, scope) in cases {
        assert_eq!(Scope::of(address.parse().expect("it is an address")), scope, "{address}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        if let Ok(inventory) = Inventory::decode(&bytes) {
            prop_assert_eq!(Inventory::decode(&inventory.encode()), Ok(inventory));
        }
    }

    #[test]
    fn changes_lead_from_any_stock_to_any_other(steps in vec(vec((0u16..40, any::<bool>()), 0..20), 1..6)) {
        let mut follower = Stock::default();
        let mut told = Stock::default();
        for step in steps {
            let mut next = told.clone();
            for (number, is_there) in step {
                if is_there { next.put(port(number)); } else { next.remove(&port(number).key()); }
            }
            match next.change_from(&told) {
                None => prop_assert_eq!(next.hash(), told.hash()),
                Some(change) => {
                    let sent = Inventory::decode(&Inventory::Change(change).encode());
                    let Ok(Inventory::Change(change)) = sent else { return Err(TestCaseError::fail("a change")) };
                    prop_assert_eq!(follower.apply(change), Ok(()));
                }
            }
            prop_assert_eq!(&follower, &next);
            prop_assert_eq!(&Stock::of(next.to_whole(Vec::new()).items), &next);
            told = next;
        }
    }
}
