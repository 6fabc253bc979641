//! Whether a build that crashes in its first moments should give its place back to the one before it. Pure.
//!
//! Clients write messages, so a crash may be a matter of the message. The best witness is the earlier build:
//! where it answers what the new one crashed on, the new one is to blame, whoever sent it. Where it could not be
//! asked, because the call may have had an effect already, it takes more crashes and more clients.

/// So many messages on which it crashed and that the earlier build answered are enough,
const ANSWERED: u64 = 2;
/// unless more than so many times as many went well.
const AMONG: u64 = 10;
/// So many crashes that nobody could stand in for are enough if nothing ever went well,
const UNANSWERED: u64 = 3;
/// and so many crashes of any kind, half of its calls,
const CRASHES: u64 = 5;
/// for so many clients: one that sends the same again and again judges nothing.
const CLIENTS: usize = 3;

/// What became of a message on which a build crashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    /// The earlier build answered it.
    Answered,
    /// The call may have had an effect, so nobody else was asked.
    Acted,
    /// There is no other build, or that one did no better.
    Alone,
}

/// The crashes of one build.
#[derive(Debug, Default)]
pub(super) struct FirstMoments {
    answered: u64,
    acted: u64,
    /// At most [`CLIENTS`] of those for whom it crashed, by a hash.
    clients: Vec<u64>,
}

impl FirstMoments {
    /// One more. Whether the build is unfit, of whose calls so many crashed.
    pub(super) fn is_unfit(&mut self, crash: Crash, client: u64, (calls, crashes): (u64, u64)) -> bool {
        match crash {
            Crash::Answered => self.answered += 1,
            Crash::Acted => self.acted += 1,
            Crash::Alone => {}
        }
        if self.clients.len() < CLIENTS && !self.clients.contains(&client) {
            self.clients.push(client);
        }
        let answered = self.answered >= ANSWERED && AMONG * crashes >= calls;
        let acted = self.acted >= UNANSWERED && crashes >= calls;
        let many = crashes >= CRASHES && 2 * crashes >= calls && self.clients.len() >= CLIENTS;
        answered || acted || many
    }

    /// How many messages the earlier build answered.
    pub(super) fn answered(&self) -> u64 {
        self.answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many crashes of one kind it is unfit, where so many calls go well between two of them, and
    /// so many clients send them in turn.
    fn unfit_after(crash: Crash, well: u64, clients: u64) -> Option<u64> {
        let mut moments = FirstMoments::default();
        (1..=100).find(|crashes| moments.is_unfit(crash, crashes % clients, (crashes * (1 + well), *crashes)))
    }

    #[test]
    fn what_the_earlier_build_answers_tells_most() {
        assert_eq!(unfit_after(Crash::Answered, 0, 1), Some(2));
        assert_eq!(unfit_after(Crash::Answered, 9, 1), Some(2));
        assert_eq!(unfit_after(Crash::Answered, 10, 1), None, "a message here and there is no reason");
    }

    #[test]
    fn what_nobody_else_could_answer_tells_less() {
        assert_eq!(unfit_after(Crash::Acted, 0, 1), Some(3));
        assert_eq!(unfit_after(Crash::Acted, 1, 1), None);
        assert_eq!(unfit_after(Crash::Acted, 1, 3), Some(5));
    }

    #[test]
    fn one_client_judges_nothing_that_crashes_every_build() {
        assert_eq!(unfit_after(Crash::Alone, 0, 1), None);
        assert_eq!(unfit_after(Crash::Alone, 0, 2), None);
        assert_eq!(unfit_after(Crash::Alone, 1, 3), Some(5));
        assert_eq!(unfit_after(Crash::Alone, 2, 3), None);
    }
}
