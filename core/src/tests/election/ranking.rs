//! Which ballot goes first.

use super::*;

#[test]
fn the_smart_elector_ranks_configuration_following_rows_followers_priority_and_idleness() {
    let best = Ballot {
        same_configuration: true,
        ..ballot("z")
    };
    let worse = [
        Ballot {
            same_configuration: false,
            vclock: vclock(99),
            priority: 9,
            ..ballot("a")
        },
        Ballot {
            following: false,
            vclock: vclock(99),
            priority: 9,
            ..ballot("a")
        },
        Ballot {
            vclock: vclock(9),
            priority: 9,
            ..ballot("a")
        },
        Ballot {
            unfollowed: true,
            priority: 9,
            ..ballot("a")
        },
        Ballot {
            priority: -1,
            ..ballot("a")
        },
        Ballot {
            idle_ms: 1,
            ..ballot("a")
        },
        ballot("zz"),
    ];
    for other in &worse {
        assert_eq!(
            compare(Elector::Smart, None, &best, other),
            Ordering::Less,
            "{other:?}"
        );
        assert_eq!(
            compare(Elector::Smart, None, other, &best),
            Ordering::Greater,
            "{other:?}"
        );
    }
}

/// It may be the only one with a row that a quorum acknowledged.
#[test]
fn rows_go_before_followers() {
    let fresh = Ballot {
        unfollowed: true,
        ..ballot("z")
    };
    let behind = Ballot {
        vclock: vclock(9),
        ..ballot("a")
    };
    let order = compare(Elector::Smart, None, &fresh, &behind);
    assert_eq!(order, Ordering::Less);
}

#[test]
fn a_ballot_says_whether_anybody_replicates_from_its_instance() {
    let lost = Record {
        status: Status::Active,
        ..last_word()
    };
    // Who follows, whose record, REPLICATION=follow, and what is said.
    let cases = [
        (vec![THIRD], last_word(), false, false),
        (vec![], last_word(), false, true),
        // The last master gave the lock up and lives: it will replicate from whoever comes.
        (vec![OTHER], last_word(), false, false),
        // It was lost, and the instance has not noticed yet.
        (vec![OTHER], lost.clone(), false, true),
        (vec![OTHER, THIRD], lost, false, false),
        (vec![], last_word(), true, false),
    ];
    for (followers, record, follow, said) in cases {
        let mut node = after(&record);
        node.state.settings.follow = follow;
        for peer in &mut node.instance.replication {
            if !followers.contains(&peer.uuid.as_str()) {
                peer.downstream_status = Some("stopped".to_owned());
            }
        }
        if record.status == Status::Active {
            node.settles();
            node.is_watched(LEASE_AND_MARGIN);
        }
        let own = node.waiting_for_ballots().wrote();
        assert_eq!(own.unfollowed, said, "{followers:?} {record:?} {follow}");
    }
}

#[test]
fn the_idle_elector_ranks_followers_then_idleness_then_rows() {
    let best = Ballot {
        vclock: vclock(5),
        following: false,
        ..ballot("z")
    };
    let busier = Ballot {
        idle_ms: 1,
        vclock: vclock(99),
        ..ballot("a")
    };
    let behind = Ballot {
        vclock: vclock(4),
        priority: 9,
        ..ballot("a")
    };
    let unfollowed = Ballot {
        unfollowed: true,
        vclock: vclock(99),
        ..ballot("a")
    };
    let busy = Ballot {
        idle_ms: 7,
        ..best.clone()
    };
    assert_eq!(
        compare(Elector::Idle, None, &busy, &unfollowed),
        Ordering::Less
    );
    assert_eq!(compare(Elector::Idle, None, &best, &busier), Ordering::Less);
    assert_eq!(compare(Elector::Idle, None, &best, &behind), Ordering::Less);
}

#[test]
fn a_vclock_that_has_all_of_another_ranks_before_it() {
    let ahead = Ballot {
        vclock: Vclock::from([("1".to_owned(), 5), ("2".to_owned(), 3)]),
        ..ballot("z")
    };
    let behind = Ballot {
        vclock: vclock(5),
        ..ballot("a")
    };
    assert_eq!(
        compare(Elector::Smart, None, &ahead, &behind),
        Ordering::Less
    );
}

/// An earlier master may come back with rows that it alone has; the last one's acknowledged rows are what counts.
#[test]
fn rows_that_the_last_master_never_had_do_not_rank() {
    let clock = |first, second| Vclock::from([("1".to_owned(), first), ("2".to_owned(), second)]);
    let node = node()
        .having(|instance| {
            let id = 2;
            instance.replication = vec![Peer {
                id,
                ..follower(OTHER)
            }];
        })
        .attached();
    let probe = node.state.live_probe().expect("its last word");
    let active = Record {
        status: Status::Active,
        vclock: clock(141, 170),
        ..record()
    };
    let last = LastMaster::of(Some(&active), probe);
    let fresh = Ballot {
        vclock: clock(141, 174),
        ..ballot("z")
    };
    let returned = Ballot {
        vclock: clock(159, 172),
        priority: 9,
        ..ballot("a")
    };
    let by = |elector, last: Option<&LastMaster>| compare(elector, last, &fresh, &returned);
    assert_eq!(by(Elector::Smart, last.as_ref()), Ordering::Less);
    assert_eq!(by(Elector::Idle, last.as_ref()), Ordering::Less);
    // Who was not promoted may have had less than whoever served last.
    for status in [Status::Promoting, Status::Fenced] {
        let never = active.clone().says(status);
        assert!(LastMaster::of(Some(&never), probe).is_none());
        let handed_on = Record {
            last_master: active.last_promoted(),
            refused: true,
            vclock: clock(1, 1),
            ..never
        };
        let last = LastMaster::of(Some(&handed_on), probe);
        assert_eq!(by(Elector::Smart, last.as_ref()), Ordering::Less);
        // A holder that does not say so may have been promoted, and have written what others have not: both count in full.
        let silent = Record {
            instance: OWN.to_owned(),
            refused: false,
            ..handed_on
        };
        let last = LastMaster::of(Some(&silent), probe);
        assert_eq!(by(Elector::Smart, last.as_ref()), Ordering::Greater);
    }
    let served = Record {
        base: clock(141, 160),
        ..active.clone().says(Status::Fenced)
    };
    assert!(LastMaster::of(Some(&served), probe).is_some());
    assert!(LastMaster::of(None, probe).is_none());
}
