//! What rules read of what stands on a node. Pure.

use std::sync::Arc;

use dunlin_shared::inventory::{Container, ContainerState, Item, Stock};
use dunlin_shared::rule::Known;

use crate::engine::InventoryRows;

/// What rules may ask of an inventory.
pub(super) const OF_INVENTORY: [Known; 6] = [
    Known::ContainerState,
    Known::ContainerHealth,
    Known::ContainerExitCode,
    Known::ContainerStopAsked,
    Known::ContainerOomKilled,
    Known::PortExposed,
];

/// What any rule reads of it.
pub(super) fn rows(stock: &Stock, reads: impl Fn(Known) -> bool) -> InventoryRows {
    let mut rows = Vec::new();
    for item in stock.items() {
        match item {
            Item::Container(container) => {
                let subject: Arc<str> = format!("container:{}", container.name).into();
                let told = OF_INVENTORY.into_iter().filter(|known| reads(*known));
                rows.extend(
                    told.filter_map(|known| Some((Arc::clone(&subject), known, of_container(container, known)?))),
                );
            }
            Item::Port(port) if reads(Known::PortExposed) && port.scope.is_exposed() => {
                rows.push((format!("port:{}", port.place).into(), Known::PortExposed, 1.0));
            }
            Item::Port(_) | Item::Group(_) | Item::Unit(_) | Item::Source(_) => {}
        }
    }
    rows
}

/// What its engine does not tell is not known.
fn of_container(container: &Container, known: Known) -> Option<f64> {
    let is_down = matches!(container.state, ContainerState::Exited | ContainerState::Dead);
    let word = |place: u8| Some(f64::from(place));
    let flag = |is_so: bool| Some(f64::from(u8::from(is_so)));
    if !container.is_told && known != Known::ContainerState {
        return None;
    }
    match known {
        Known::ContainerState => word(container.state as u8),
        Known::ContainerHealth => word(container.health as u8),
        Known::ContainerExitCode => container.exit_code.filter(|_| is_down).map(f64::from),
        Known::ContainerStopAsked => flag(container.is_stop_asked),
        Known::ContainerOomKilled => flag(container.is_oom_killed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use dunlin_shared::inventory::{Health, Place, Port, Protocol, Scope};

    use super::*;

    #[test]
    fn words_stand_where_rules_look_for_them() {
        let states = [
            ContainerState::Created,
            ContainerState::Running,
            ContainerState::Paused,
            ContainerState::Restarting,
            ContainerState::Exited,
            ContainerState::Dead,
        ];
        for state in states {
            let container = Container { state, is_told: true, ..Container::default() };
            let place = of_container(&container, Known::ContainerState).expect("it is told");
            assert_eq!(
                Known::ContainerState.words().iter().position(|word| *word == state.as_str()).map(|at| at as f64),
                Some(place)
            );
        }
        for health in [Health::None, Health::Starting, Health::Healthy, Health::Unhealthy] {
            let container = Container { health, is_told: true, ..Container::default() };
            let place = of_container(&container, Known::ContainerHealth).expect("it is told");
            assert_eq!(
                Known::ContainerHealth.words().iter().position(|word| *word == health.as_str()).map(|at| at as f64),
                Some(place)
            );
        }
    }

    #[test]
    fn only_what_is_read_and_exposed_is_told() {
        let port = |scope| {
            let address = "0.0.0.0".parse().expect("an address");
            let place = Place { network: None, protocol: Protocol::Tcp, address, port: scope as u16 };
            Item::Port(Port { place, scope, process: None, container: None, user: None })
        };
        let web = Container {
            name: "web".into(),
            is_told: true,
            state: ContainerState::Exited,
            exit_code: Some(3),
            ..Container::default()
        };
        let stock = Stock::of([port(Scope::Any), port(Scope::Loopback), Item::Container(Box::new(web))]);
        let told = |known| {
            rows(&stock, |one| one == known)
                .into_iter()
                .map(|(subject, _, value)| (subject.to_string(), value))
                .collect::<Vec<_>>()
        };
        assert_eq!(told(Known::PortExposed), [("port:tcp:0.0.0.0:3".to_owned(), 1.0)]);
        assert_eq!(told(Known::ContainerExitCode), [("container:web".to_owned(), 3.0)]);
        assert!(rows(&stock, |_| false).is_empty());
    }
}
