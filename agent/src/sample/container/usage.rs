//! What a control group uses, until the reader of control groups stands beside this part: a stand-in with its fields.

/// Each is absent where the group does not tell it, and a limit where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::sample) struct Usage {
    pub(in crate::sample) cpu_seconds: Option<f64>,
    pub(in crate::sample) throttled_seconds: Option<f64>,
    pub(in crate::sample) cpu_limit_cores: Option<f64>,
    pub(in crate::sample) memory_used_bytes: Option<f64>,
    pub(in crate::sample) anon_bytes: Option<f64>,
    pub(in crate::sample) file_bytes: Option<f64>,
    pub(in crate::sample) kernel_bytes: Option<f64>,
    pub(in crate::sample) memory_limit_bytes: Option<f64>,
    pub(in crate::sample) swap_bytes: Option<f64>,
    pub(in crate::sample) oom_kills: Option<f64>,
    pub(in crate::sample) read_bytes: Option<f64>,
    pub(in crate::sample) written_bytes: Option<f64>,
    pub(in crate::sample) tasks: Option<f64>,
}
