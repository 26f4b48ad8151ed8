//! Exports: so many at once, of what the caller sees, and none that holds its place when nobody takes it.

use std::time::Duration;

use dunlin_shared::id::{Epoch, Seq};
use dunlin_shared::metric::by_name;
use dunlin_shared::sample::Subject;
use dunlin_shared::time::MonoMs;
use http_body_util::BodyExt as _;

use super::*;
use crate::block::{Column, Measure, Row, Stretch};
use crate::record::Pos;
use crate::window::Intake;

/// 2026-11-21 10:00:00 UTC.
const T0: i64 = 1_795_255_200_000;
/// More than is on its way to a client: several chunks.
const ROWS: i64 = 5_000;
const PATH: &str = "/api/v1/export?from=2026-11-21T00:00:00Z";

/// With samples of the nodes of both tenants.
fn filled() -> Rig {
    let rig = Rig::new();
    let row = |tick: i64| Row {
        time: WallMs(T0 - 3_600_000 + tick),
        epoch: Epoch(1),
        seq: Seq(tick.unsigned_abs()),
        mono: MonoMs(tick.unsigned_abs()),
    };
    let measure = Measure::Catalogued(by_name("host_load1").expect("it is in the catalogue").id);
    let column = Column { subject: Subject::HOST(), measure, values: (0..ROWS).collect() };
    let stretch = Stretch { rows: (0..ROWS).map(row).collect(), columns: vec![column] };
    let mut intake = Intake::new(&rig.dir.join("window"), Pos(1), WallMs(T0));
    for number in 1..=2u8 {
        intake.put((NodeKey(number.into()), node_id(number)), stretch.clone()).expect("it is written");
    }
    intake.finish(Pos(1)).expect("it is written");
    rig
}

async fn begun(rig: &Rig) -> axum::response::Response {
    let asked = request("GET", PATH, Some(&token(Role::Viewer, false)), Body::empty());
    rig.router.clone().oneshot(asked).await.expect("the router does not fail")
}

#[tokio::test]
async fn two_exports_at_once_are_allowed_and_whoever_goes_away_makes_room() {
    let rig = filled();
    let (first, second) = (begun(&rig).await, begun(&rig).await);
    assert_eq!((first.status(), second.status()), (StatusCode::OK, StatusCode::OK));
    let third = rig.ask("GET", PATH, Some(&token(Role::Viewer, false)), "").await;
    assert_eq!(third.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(third.headers.contains_key("retry-after"));
    // Others are answered while nobody takes what the two hold.
    let series = "/api/v1/nodes/alone/series?metric=host_load1";
    assert_eq!(rig.get(series).await.status, StatusCode::OK);
    drop(first);
    let again = async {
        while begun(&rig).await.status() != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), again).await.expect("there is room again");
    let whole = second.into_body().collect().await.expect("it is whole").to_bytes();
    assert_eq!(whole.iter().filter(|byte| **byte == b'\n').count() - 1, 2 * usize::try_from(ROWS).expect("small"));
}

#[tokio::test]
async fn a_token_with_limits_exports_what_it_sees() {
    let rig = filled();
    let limited = token(Role::Viewer, true);
    let text = |answered: Answered| String::from_utf8(answered.body.to_vec()).expect("text");
    let seen = text(rig.ask("GET", PATH, Some(&limited), "").await);
    assert!(seen.contains(&node_id(1).to_string()) && !seen.contains(&node_id(2).to_string()));
    let hidden = rig.ask("GET", &format!("{PATH}&node={}", node_id(2)), Some(&limited), "").await;
    assert_eq!(hidden.status, StatusCode::NOT_FOUND);
    let open = rig.ask("GET", &format!("{PATH}&format=openmetrics"), Some(&limited), "").await;
    assert_eq!(open.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(text(open).ends_with("# EOF\n"));
    for wrong in [
        "&format=xml",
        "&resolution=2h",
        "&counter=x",
        "&resolution=5m&counter=value",
        "&metric=cpu",
        "&to=2026-11-20T00:00:00Z",
    ] {
        let refused = rig.get(&format!("{PATH}{wrong}")).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
}
