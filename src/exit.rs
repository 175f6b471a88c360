//! Exit codes.
/// How the agent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0
    Stopped,
    /// 1
    Internal,
    /// 2
    Settings,
    /// 3
    Unsuitable,
    /// 4
    Superseded,
    /// 5
    SecondSignal,
}
