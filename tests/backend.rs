//! One conformance suite for everything that implements the backend port. Each line at the end runs all of it.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot get what it needs has failed"
)]

mod backend {
    pub mod caller;
    pub mod cases;
    pub mod churn;
    pub mod dial;
    pub mod harness;
    pub mod os;
    pub mod silence;
    pub mod sim;
    pub mod tls;
    pub mod transfer;
    pub mod world;
}

use backend::{cases, churn, os, silence, sim, tls, transfer};

/// Runs every case on one harness.
macro_rules! suite {
    ($name:ident, $harness:ty) => {
        suite! { $name, $harness:
            cases::echoes_in_place,
            cases::a_connection_comes_with_its_address,
            cases::a_turn_sends_to_many,
            cases::shared_bytes_are_sent_from_start_to_end,
            cases::a_peers_reset_is_a_failure,
            cases::a_reset_reaches_who_was_paused,
            cases::a_peers_half_close_leaves_sending,
            cases::our_half_close_leaves_receiving,
            cases::a_half_close_at_once_leaves_receiving,
            cases::a_graceful_close_delivers_what_was_taken,
            cases::a_reset_shows_as_one,
            cases::a_refused_connection_is_reset,
            cases::sending_to_who_is_gone_fails_and_no_more,
            cases::a_flood_leaves_others_their_turn,
            cases::a_quietened_connection_wakes_again,
            cases::a_waker_wakes_the_current_and_the_next_wait,
            cases::waiting_ends_with_its_timeout_or_with_work,
            cases::a_paused_listener_takes_nobody,
            cases::a_closing_listener_takes_who_waits,
            cases::a_closed_listener_leaves_connections,
            transfer::much_arrives_whole,
            transfer::much_is_sent_whole,
            transfer::much_goes_both_ways,
            transfer::who_is_paused_holds_the_peer_back,
            transfer::room_is_told_once_and_only_when_wanted,
            transfer::closing_with_a_short_send_ends_all,
            churn::an_old_name_never_comes_back,
            churn::starved_accepts_go_on_when_fed,
            churn::a_full_table_refuses_and_recovers,
            churn::thousands_come_and_go,
        }
    };
    ($name:ident, $harness:ty: $($area:ident::$case:ident,)*) => {
        mod $name {
            use super::*;

            $(#[test]
            fn $case() {
                $area::$case::<$harness>();
            })*
        }
    };
}

suite!(epoll, os::Loopback<holdline::io::epoll::Epoll>);
suite!(uring, os::Loopback<holdline::io::uring::Uring>);
suite!(proxy, os::Loopback<holdline::io::proxy::Proxy<holdline::io::epoll::Epoll>>);
suite!(simulation, sim::Simulated<sim::Calm>);
suite!(simulation_with_faults, sim::Simulated<sim::Harsh>);
suite!(tls_over_epoll, tls::Secured<holdline::io::epoll::Epoll>);
suite!(tls_over_uring, tls::Secured<holdline::io::uring::Uring>);

/// What only backends over the system's own sockets do.
macro_rules! silence {
    ($name:ident, $backend:ty) => {
        mod $name {
            use super::*;

            #[test]
            fn who_is_silenced_is_not_answered_and_others_are() {
                silence::who_is_silenced_is_not_answered_and_others_are::<$backend>();
            }

            #[test]
            fn who_comes_while_somebody_is_silent_is_served() {
                silence::who_comes_while_somebody_is_silent_is_served::<$backend>();
            }
        }
    };
}

silence!(silence_of_epoll, holdline::io::epoll::Epoll);
silence!(silence_of_uring, holdline::io::uring::Uring);
silence!(silence_behind_a_proxy, holdline::io::proxy::Proxy<holdline::io::epoll::Epoll>);
