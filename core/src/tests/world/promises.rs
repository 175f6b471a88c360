//! Questions for promises between agents and other members' guards: each takes its own way and time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::fixtures::Span;
use super::{Due, Question, World};
use crate::event::Event;
use crate::plan::Action;

/// How long an agent waits for answers.
const PATIENCE: Duration = Duration::from_secs(2);

impl World {
    pub(super) fn asks(&mut self, at: usize, agent: u32, action: &Action) {
        let Action::AskPromises {
            term,
            instance,
            lasting,
            members,
            reading,
            for_all,
        } = action
        else {
            return;
        };
        self.order += 1;
        let question = self.order;
        self.questions.insert(
            question,
            Question {
                at,
                agent,
                to: instance.clone(),
                term: *term,
                lasting: *lasting,
                for_all: for_all.is_some(),
                reading: *reading,
                members: members.keys().cloned().collect(),
                answers: BTreeMap::new(),
                told: false,
            },
        );
        for member in members.keys().cloned() {
            let after = self.on_its_way();
            self.schedule(after, Due::Ask { question, member });
        }
        let patience = if members.is_empty() {
            Duration::ZERO
        } else {
            PATIENCE
        };
        self.schedule(patience, Due::AskingEnds { question });
    }

    /// As slow as the weather.
    fn on_its_way(&mut self) -> Duration {
        let weather = self.weather;
        if weather.slow_one_in > 0 && self.random(weather.slow_one_in) == 0 {
            let slow_us = u64::try_from(weather.slow.as_micros()).unwrap();
            return Duration::from_micros(self.random(slow_us));
        }
        self.soon()
    }

    pub(super) fn asks_member(&mut self, question: u64, member: String) {
        let now = self.now;
        let Some(asked) = self.questions.get(&question) else {
            return;
        };
        let found = self
            .places
            .iter()
            .position(|place| place.instance.uuid == member);
        let Some(there) =
            found.filter(|there| self.places[*there].peers && self.places[asked.at].peers)
        else {
            return;
        };
        if self.places[there].instance.frozen {
            // It stands in its queue.
            self.schedule(500.ms(), Due::Ask { question, member });
            return;
        }
        let instance = &mut self.places[there].instance;
        let landed = instance.guard.landed || !asked.for_all;
        let answer = if landed {
            instance.promises(&asked.to, asked.term, asked.lasting, now)
        } else {
            Err("its last commits may still land".to_owned())
        };
        let lost = self.weather.lost_one_in > 0 && self.random(self.weather.lost_one_in) == 0;
        if !lost {
            let after = self.on_its_way();
            self.schedule(
                after,
                Due::Answered {
                    question,
                    member,
                    answer,
                },
            );
        }
    }

    pub(super) fn member_answers(
        &mut self,
        question: u64,
        member: String,
        answer: Result<(), String>,
    ) {
        let Some(asked) = self.questions.get_mut(&question) else {
            return;
        };
        asked.answers.insert(member, answer);
        if asked.answers.len() == asked.members.len() {
            self.tell_answers(question);
        }
    }

    pub(super) fn asking_ends(&mut self, question: u64) {
        if self
            .questions
            .get(&question)
            .is_some_and(|asked| !asked.told)
        {
            self.tell_answers(question);
        }
    }

    /// The question itself stays: what is still on its way arrives.
    fn tell_answers(&mut self, question: u64) {
        let Some(asked) = self
            .questions
            .get_mut(&question)
            .filter(|asked| !asked.told)
        else {
            return;
        };
        asked.told = true;
        let (at, agent) = (asked.at, asked.agent);
        let event = Event::PromisesAnswered {
            unguarded: Default::default(),
            reading: asked.reading,
            answers: asked.answers.clone(),
        };
        let after = self.soon();
        self.schedule(after, Due::Hear { at, agent, event });
    }
}
