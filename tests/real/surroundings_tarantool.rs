//! Instances that cannot be looked after, yet or at all: what is said about them, and what is left alone.
