//! What happens in a life, and how often.

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    Submit,
    StopJob,
    Calm,
    Crash,
    ImageLost,
    EngineRestart,
    EngineRefuses,
    EngineLies,
    AgentKilled,
    PowerCut,
    PowerCutWithin,
    LinkDown,
    LinkBad,
    AllLinksDown,
    DiskFull,
    ServerDown,
    ServerRestored,
    FileGarbled,
    ClockJumps,
    Drain,
}

impl Event {
    /// All, with their weights.
    pub(crate) const ALL: [(Self, usize); 20] = [
        (Self::Submit, 30),
        (Self::StopJob, 4),
        (Self::Calm, 4),
        (Self::Crash, 6),
        (Self::ImageLost, 3),
        (Self::EngineRestart, 4),
        (Self::EngineRefuses, 4),
        (Self::EngineLies, 3),
        (Self::AgentKilled, 6),
        (Self::PowerCut, 4),
        (Self::PowerCutWithin, 12),
        (Self::LinkDown, 5),
        (Self::LinkBad, 6),
        (Self::AllLinksDown, 2),
        (Self::DiskFull, 4),
        (Self::ServerDown, 4),
        (Self::ServerRestored, 3),
        (Self::FileGarbled, 4),
        (Self::ClockJumps, 3),
        (Self::Drain, 2),
    ];

    /// Those that are faults, for the count.
    pub(crate) fn is_fault(self) -> bool {
        !matches!(self, Self::Submit | Self::StopJob | Self::Calm)
    }

    /// Draws one.
    pub(crate) fn draw(mut below: impl FnMut(usize) -> usize) -> Self {
        let mut left = below(Self::ALL.iter().map(|(_, weight)| weight).sum());
        for (event, weight) in Self::ALL {
            if left < weight {
                return event;
            }
            left -= weight;
        }
        Self::Calm
    }
}
