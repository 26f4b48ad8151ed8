//! Series of the window as the API shows them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Moment;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Series {
    /// The id.
    pub node: String,
    pub subject: String,
    pub metric: String,
    pub unit: String,
    /// True when the points are how much a counter grew in a second.
    pub per_second: bool,
    /// In the order of time. null is a gap: nothing is known from there to the next point.
    #[schema(value_type = Vec<(Moment, Option<f64>)>)]
    pub points: Vec<(Moment, Option<f64>)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SeriesPage {
    pub items: Vec<Series>,
    pub next: Option<String>,
    /// What the points were made from: `full`, every sample; `5m` or `1h`, roll-ups of so long.
    #[serde(default)]
    pub resolution: String,
}
