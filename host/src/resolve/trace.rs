//! What the rule notes on its way, for those who ask why.

/// A step of the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Before the rule: which version a name without one means.
    Version,
    /// 1: the `server` of the service.
    Server,
    /// 2: the client's assignment.
    Assignment,
    /// 3: the registrar.
    Registrar,
    /// 4: the server list.
    List,
}

/// Takes notes.
pub trait Trace: Send {
    /// A step, and what came of it; `outcome` is evaluated only if the note is kept.
    fn note(&mut self, step: Step, outcome: impl FnOnce() -> String);
}

/// Keeps nothing and costs nothing.
pub struct Untraced;

impl Trace for Untraced {
    fn note(&mut self, _: Step, _: impl FnOnce() -> String) {}
}

/// One note.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct TraceLine {
    /// The step.
    pub step: Step,
    /// What came of it, in words.
    pub outcome: String,
}

impl Trace for Vec<TraceLine> {
    fn note(&mut self, step: Step, outcome: impl FnOnce() -> String) {
        self.push(TraceLine { step, outcome: outcome() });
    }
}
