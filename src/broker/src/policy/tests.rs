use nsecd_policy::{Bind, CryptLimits, DmLimits, Kinds, Limits, Method as Offer, StartSessions};

use super::*;
use crate::fixture::{A, B, KEY, START, ask, at, engine_with, policy_with, sign, token};
use crate::request;

fn engine() -> Engine {
    engine_with(|_| {})
}

fn start(engine: &mut Engine, who: Principal, now: Now, params: &str) -> Result<String, (Code, String)> {
    match ask(engine, who, now, &format!(r#"{{"method":"session_start","params":{params}}}"#)) {
        Verdict::Answer(answer) => Ok(answer.line),
        other => Err(refused(other)),
    }
}

fn refused(verdict: Verdict) -> (Code, String) {
    match verdict {
        Verdict::Refused(refusal) | Verdict::Limited(refusal, _) => (refusal.error.code, refusal.error.text),
        other => panic!("not refused: {other:?}"),
    }
}

fn answered(verdict: Verdict) -> Answer {
    match verdict {
        Verdict::Answer(answer) => answer,
        other => panic!("not answered: {other:?}"),
    }
}

fn granted(verdict: Verdict) -> Grant {
    match verdict {
        Verdict::Sign(grant) => grant,
        other => panic!("not granted: {other:?}"),
    }
}

#[test]
fn without_a_token_only_listed_kinds_are_signed() {
    let mut engine = engine();
    let grant = granted(sign(&mut engine, A, START, 1, None));
    assert_eq!(grant.account, 1);
    assert!(grant.texts.canonical.starts_with(&format!("[0,\"{KEY}\",1800000000,1,[],")));
    for kind in [0, 3, 5, 7, 13, 10002, 22242, 27235] {
        let (code, text) = refused(sign(&mut engine, A, START, kind, None));
        assert_eq!((code, text), (Code::NoSession, format!("Event kind {kind} not allowed without a session token")));
    }
    let mut engine = engine_with(|s| s.tokenless = Kinds::Any);
    assert_eq!(refused(sign(&mut engine, A, START, 0, None)).0, Code::OutOfScope);
}

#[test]
fn a_session_signs_its_scope_and_nothing_else() {
    let mut engine = engine();
    let token = token(&start(&mut engine, A, START, r#"{"scope":"1,7","ttl":"60"}"#).expect("within the ceiling"));
    granted(sign(&mut engine, A, START, 7, Some(&token)));
    let (code, text) = refused(sign(&mut engine, A, START, 1111, Some(&token)));
    assert_eq!((code, text.as_str()), (Code::OutOfScope, "Event kind 1111 not in session scope [1,7]"));
    assert_eq!(refused(sign(&mut engine, A, START, 1, Some("nope"))).1, "Invalid session token");
    assert_eq!(refused(sign(&mut engine, A, START, 1, Some(""))).1, "Invalid session token");
    assert_eq!(refused(sign(&mut engine, A, at(60), 7, Some(&token))), (Code::Expired, "Session expired".into()));
    assert_eq!(refused(sign(&mut engine, A, at(60), 7, Some(&token))).1, "Invalid session token");
}

#[test]
fn an_omitted_scope_or_ttl_is_clipped_and_an_explicit_one_is_refused() {
    let mut engine = engine();
    let line = start(&mut engine, A, START, "{}").expect("defaults");
    assert!(
        line.ends_with(&format!("\"expiresAt\":{},\"allowedKinds\":[1,1111]}}}}", START.wall + 3_600_000)),
        "{line}"
    );
    let (code, text) = start(&mut engine, A, START, r#"{"scope":"1,0"}"#).expect_err("above the ceiling");
    assert_eq!((code, text.as_str()), (Code::OutOfScope, "Scope kind 0 not in socket ceiling [1,7,1111]"));
    let (code, text) = start(&mut engine, A, START, r#"{"ttl":3601}"#).expect_err("above the ceiling");
    assert_eq!((code, text.as_str()), (Code::OutOfScope, "ttl 3601 exceeds the socket ceiling, 3600 seconds"));
    assert!(start(&mut engine, A, START, r#"{"ttl":"99999999999999999999"}"#).is_err());
    let mut other = engine_with(|s| s.kinds = Kinds::List(vec![7, 0]));
    assert!(start(&mut other, A, START, "{}").expect("the ceiling's own").ends_with("\"allowedKinds\":[7,0]}}"));
    let mut any = engine_with(|s| s.kinds = Kinds::Any);
    assert!(start(&mut any, A, START, "{}").expect("the default").ends_with("\"allowedKinds\":[1,9734,1111]}}"));
}

#[test]
fn a_narrower_session_is_never_wider_or_longer() {
    let mut engine = engine();
    let parent = token(&start(&mut engine, A, START, r#"{"scope":"7,1","ttl":100}"#).expect("a session"));
    let with = |params: &str| format!("{{\"session_token\":\"{parent}\"{params}}}");
    let line = start(&mut engine, A, at(10), &with("")).expect("clipped to the parent");
    assert!(line.contains(&format!("\"expiresAt\":{},\"allowedKinds\":[1]", START.wall + 100_000)), "{line}");
    let (code, text) = start(&mut engine, A, at(10), &with(",\"scope\":\"1111\"")).expect_err("wider");
    assert_eq!((code, text.as_str()), (Code::OutOfScope, "Scope kind 1111 not in session scope [7,1]"));
    assert!(start(&mut engine, A, at(10), &with(",\"ttl\":91")).is_err());
    let child = token(&start(&mut engine, A, at(10), &with(",\"ttl\":90,\"scope\":\"7\"")).expect("narrower"));
    granted(sign(&mut engine, A, at(99), 7, Some(&child)));
    let revoke = format!(r#"{{"method":"session_revoke","params":{{"token":"{parent}"}}}}"#);
    assert_eq!(answered(ask(&mut engine, A, at(99), &revoke)).line, r#"{"revoked":true}"#);
    assert_eq!(refused(sign(&mut engine, A, at(99), 7, Some(&child))).0, Code::NoSession);
}

#[test]
fn the_first_signer_owns_a_session_and_others_raise_an_alert() {
    let mut engine = engine();
    let token = token(&start(&mut engine, A, START, "{}").expect("a session"));
    let info = format!(r#"{{"method":"session_info","params":{{"token":"{token}"}}}}"#);
    let seen = answered(ask(&mut engine, B, START, &info));
    assert_eq!((seen.line.as_str(), seen.alert.is_some()), (reply::NO_SESSION_INFO, true));
    granted(sign(&mut engine, B, START, 1, Some(&token)));
    let Verdict::Refused(refusal) = sign(&mut engine, A, START, 1, Some(&token)) else { panic!("bound to B") };
    assert_eq!(refusal.error.text, "Invalid session token");
    assert!(refusal.alert.is_some_and(|a| a.contains("another principal")));
    for who in [A, B] {
        assert!(answered(ask(&mut engine, who, START, &info)).line.contains("\"signCount\":1,"));
    }
    let other_socket = Principal { socket: 1, uid: 1000, cgroup: None };
    assert!(answered(ask(&mut engine, other_socket, START, &info)).alert.is_none());
    let revoke = info.replace("session_info", "session_revoke");
    assert_eq!(answered(ask(&mut engine, other_socket, START, &revoke)).line, r#"{"revoked":false}"#);
}

#[test]
fn under_bind_starter_nobody_else_uses_a_session() {
    let mut engine = engine_with(|s| s.bind = Bind::Starter);
    let token = token(&start(&mut engine, A, START, "{}").expect("a session"));
    assert_eq!(refused(sign(&mut engine, B, START, 1, Some(&token))).0, Code::NoSession);
    granted(sign(&mut engine, A, START, 1, Some(&token)));
}

#[test]
fn new_sessions_bring_a_principal_no_new_signatures() {
    let mut engine = engine();
    let mut made = 0;
    for _ in 0..6 {
        let token = token(&start(&mut engine, A, START, "{}").expect("a session"));
        for _ in 0..5 {
            made += u32::from(matches!(sign(&mut engine, A, START, 1, Some(&token)), Verdict::Sign(_)));
        }
    }
    assert_eq!(made, 5);
    let (code, text) = start(&mut engine, A, START, "{}").expect_err("six a minute");
    assert_eq!((code, text.as_str()), (Code::RateLimited, "Rate limit: 6/6 sessions per minute"));
    granted(sign(&mut engine, B, START, 1, None));
}

#[test]
fn all_principals_of_a_socket_share_its_total() {
    let mut engine = engine();
    let made: usize = (0..10)
        .map(|uid| {
            let who = Principal { socket: 0, uid, cgroup: None };
            (0..5).filter(|_| matches!(sign(&mut engine, who, START, 1, None), Verdict::Sign(_))).count()
        })
        .sum();
    assert_eq!(made, 20);
    let text = refused(sign(&mut engine, Principal { socket: 0, uid: 50, cgroup: None }, START, 1, None)).1;
    assert_eq!(text, "Rate limit: burst exceeded (20/20 in 10s) for the whole socket");
    granted(sign(&mut engine, Principal { socket: 1, uid: 50, cgroup: None }, START, 1, None));
}

#[test]
fn cgroups_of_one_uid_are_principals_of_their_own_under_one_total() {
    let mut engine = engine();
    let of = |cgroup| Principal { cgroup: Some(cgroup), ..A };
    let token = token(&start(&mut engine, of(1), START, "{}").expect("a session"));
    granted(sign(&mut engine, of(2), START, 1, Some(&token)));
    let Verdict::Refused(refusal) = sign(&mut engine, of(1), START, 1, Some(&token)) else { panic!("bound to 2") };
    assert!(refusal.alert.is_some_and(|a| a.contains("another principal")));
    let mut signed =
        |cgroup| (0..10).filter(|_| matches!(sign(&mut engine, of(cgroup), START, 1, None), Verdict::Sign(_))).count();
    assert_eq!([2, 1, 3, 4, 5, 6].map(&mut signed), [4, 5, 5, 5, 0, 0]);
}

#[test]
fn refused_and_failed_requests_use_no_slot() {
    let mut engine = engine();
    for _ in 0..20 {
        let grant = granted(sign(&mut engine, A, START, 1, None));
        engine.free(grant.slot);
        refused(sign(&mut engine, A, START, 0, None));
    }
    for _ in 0..5 {
        granted(sign(&mut engine, A, START, 1, None));
    }
    let Verdict::Limited(refusal, wait) = sign(&mut engine, A, at(1), 1, None) else { panic!("the burst is used up") };
    assert_eq!(wait, 20);
    assert_eq!(refusal.error.text, "Rate limit: burst exceeded (5/5 in 10s)");
    assert_eq!(refusal.error.retry_after_ms, Some(9000));
}

#[test]
fn an_account_is_never_replaced_by_another() {
    let mut engine = engine();
    let key = |engine: &mut Engine, socket, params: &str| {
        let text = format!(r#"{{"method":"get_public_key","params":{params}}}"#);
        ask(engine, Principal { socket, uid: 1, cgroup: None }, START, &text)
    };
    for params in ["null", "{}", r#"{"account":""}"#, r#"{"account":"default"}"#, r#"{"account":null}"#] {
        assert_eq!(answered(key(&mut engine, 0, params)).line, format!("{{\"pubkey\":\"{KEY}\"}}"));
    }
    for name in ["business", "x", "DEFAULT"] {
        let (code, text) = refused(key(&mut engine, 0, &format!(r#"{{"account":"{name}"}}"#)));
        assert_eq!((code, text), (Code::Forbidden, format!("Unknown or unloaded account: {name}. Loaded: default")));
    }
    assert!(answered(key(&mut engine, 1, r#"{"account":"business"}"#)).line.contains("bbbb"));
    assert!(refused(key(&mut engine, 1, r#"{"account":"y"}"#)).1.ends_with("Loaded: business, default"));
    let list = answered(ask(
        &mut engine,
        Principal { socket: 1, uid: 1, cgroup: None },
        START,
        r#"{"method":"list_accounts"}"#,
    ))
    .line;
    assert!(
        list.starts_with("{\"accounts\":[{\"name\":\"default\",") && list.ends_with("\"default\":false}]}"),
        "{list}"
    );
}

#[test]
fn a_session_carries_its_account() {
    let mut engine = engine();
    let who = Principal { socket: 1, uid: 1, cgroup: None };
    let token = token(&start(&mut engine, who, START, r#"{"account":"business"}"#).expect("a session"));
    assert_eq!(granted(sign(&mut engine, who, START, 1, Some(&token))).account, 0);
    let params = format!(r#"{{"kind":1,"content":"","session_token":"{token}","account":"business"}}"#);
    granted(ask(&mut engine, who, START, &format!(r#"{{"method":"sign_event","params":{params}}}"#)));
    let child = start(&mut engine, who, START, &format!(r#"{{"session_token":"{token}","account":"other"}}"#));
    assert!(child.is_err_and(|(_, text)| text.starts_with("Unknown or unloaded account: other")));
    // "default" names an account like any other name: it is not this session's.
    let params = format!(r#"{{"kind":1,"content":"","session_token":"{token}","account":"default"}}"#);
    let text = format!(r#"{{"method":"sign_event","params":{params}}}"#);
    assert_eq!(refused(ask(&mut engine, who, START, &text)).0, Code::OutOfScope);
}

#[test]
fn created_at_and_pubkey_must_not_contradict() {
    let mut engine = engine();
    let mut with = |fields: &str| {
        let text = format!(r#"{{"method":"sign_event","params":{{"kind":1,"content":"",{fields}}}}}"#);
        ask(&mut engine, A, START, &text)
    };
    for (offset, fine) in [(-3600, true), (-3601, false), (900, true), (901, false)] {
        let verdict = with(&format!("\"created_at\":{}", 1_800_000_000 + offset));
        assert_eq!(matches!(verdict, Verdict::Sign(_)), fine, "{offset}");
    }
    granted(with(&format!("\"pubkey\":\"{}\",\"id\":\"ff\",\"sig\":5", KEY.to_uppercase())));
    assert_eq!(refused(with("\"pubkey\":\"5cbdf0646e\"")).0, Code::BadRequest);
}

#[test]
fn methods_are_those_of_the_socket() {
    let mut engine = engine();
    let nip44 = r#"{"method":"nip44_encrypt","params":{"plaintext":"x","peer_pubkey":"y"}}"#;
    let Verdict::Refused(refusal) = ask(&mut engine, A, START, nip44) else { panic!("not allowed") };
    assert!(refusal.error.line().starts_with(r#"{"result":null,"error":"nip44_encrypt failed: "#));
    assert_eq!(refusal.error.code, Code::Forbidden);
    let mut engine = engine_with(|s| s.methods = vec![Offer::Nip44, Offer::Dm]);
    assert_eq!(refused(ask(&mut engine, A, START, nip44)).0, Code::Unavailable);
    let with_token = nip44.replace("\"plaintext\"", "\"session_token\":\"\",\"plaintext\"");
    assert_eq!(refused(ask(&mut engine, A, START, &with_token)).0, Code::NoSession);
    assert_eq!(refused(sign(&mut engine, A, START, 1, None)).0, Code::Forbidden);
    let unwrap = r#"{"method":"unwrap_gift_wrap","params":{"event":{}}}"#;
    assert!(refused(ask(&mut engine, A, START, unwrap)).1.starts_with("Unwrap failed: "));
}

#[test]
fn nothing_is_remembered_for_ever() {
    let mut engine = engine();
    for uid in 0..10 {
        let who = Principal { socket: 0, uid, cgroup: None };
        start(&mut engine, who, START, "{}").expect("a session");
        sign(&mut engine, who, START, 1, None);
    }
    // Two totals; of each uid, its principal and its session.
    engine.sweep(at(3599));
    assert_eq!(engine.ledger().pieces().len(), 2 + 3 * 10);
    engine.sweep(at(3600 + 3600));
    assert_eq!(engine.ledger().pieces().len(), 2);
}

#[test]
fn a_request_that_may_wait_stands_behind_those_that_do() {
    let mut engine = engine();
    let call = request::parse(br#"{"method":"sign_event","params":{"kind":1,"content":""}}"#).expect("a call");
    let verdict = engine.decide(&call, A, true, START, &mut || [0; 32]);
    assert!(matches!(verdict, Verdict::Limited(_, 20)));
    let mut engine = engine_with(|s| s.tokenless_on_limit_wait = 0);
    assert!(matches!(engine.decide(&call, A, true, START, &mut || [0; 32]), Verdict::Sign(_)));
}

#[test]
fn whoever_narrows_a_session_handed_to_it_owns_it() {
    let mut engine = engine();
    let parent = token(&start(&mut engine, A, START, "{}").expect("a session"));
    let narrower = format!("{{\"session_token\":\"{parent}\",\"scope\":\"1\"}}");
    start(&mut engine, A, START, &narrower).expect("the starter narrows what it hands on");
    start(&mut engine, B, START, &narrower).expect("not bound yet");
    let Verdict::Refused(refusal) = sign(&mut engine, A, START, 1, Some(&parent)) else { panic!("bound to B") };
    assert!(refusal.alert.is_some_and(|a| a.contains("another principal")));
    granted(sign(&mut engine, B, START, 1, Some(&parent)));
}

#[test]
fn a_session_that_finds_no_room_uses_no_start() {
    let mut engine = engine_with(|s| s.live_sessions = 1);
    let parent = token(&start(&mut engine, A, START, "{}").expect("a session"));
    for _ in 0..10 {
        let refused = start(&mut engine, A, START, &format!("{{\"session_token\":\"{parent}\"}}"));
        assert!(refused.is_err_and(|(code, text)| code == Code::OutOfScope && text.contains("1 session at a time")));
    }
    granted(sign(&mut engine, A, START, 1, Some(&parent)));
    start(&mut engine, A, START, "{}").expect("a session in the first one's place");
}

#[test]
fn new_cgroups_of_one_uid_do_not_bring_sessions_without_end() {
    let mut engine = engine_with(|s| s.live_sessions = 2);
    let mut started = 0;
    for cgroup in 0..1000 {
        let who = Principal { cgroup: Some(cgroup), ..A };
        for _ in 0..2 {
            let call = request::parse(br#"{"method":"session_start","params":{}}"#).expect("a request");
            let verdict = engine.decide(&call, who, false, START, &mut || {
                started += 1;
                let mut random = [0; 32];
                random[..8].copy_from_slice(&u64::to_be_bytes(started));
                random
            });
            if let Verdict::Refused(refusal) = verdict {
                assert_eq!(refusal.error.code, Code::Unavailable);
            }
        }
    }
    assert_eq!(started, 256);
    let other = Principal { cgroup: Some(7), ..B };
    let call = request::parse(br#"{"method":"session_start","params":{}}"#).expect("a request");
    assert!(matches!(engine.decide(&call, other, false, START, &mut || [9; 32]), Verdict::Answer(_)));
}

#[test]
fn under_once_the_first_session_holds_a_principal_for_good() {
    let mut engine = engine_with(|s| s.start_sessions = StartSessions::Once);
    granted(sign(&mut engine, A, START, 1, None));
    let first = token(&start(&mut engine, A, START, r#"{"scope":"7","ttl":60}"#).expect("the first session"));
    let later = |engine: &mut Engine, now, params: &str| start(engine, A, now, params).map_err(|(code, _)| code);
    assert_eq!(later(&mut engine, at(1), r#"{"scope":"1"}"#), Err(Code::OutOfScope));
    assert_eq!(later(&mut engine, at(1), r#"{"scope":"7","ttl":60}"#), Err(Code::OutOfScope));
    let line = later(&mut engine, at(1), "{}").expect("clipped to the first");
    assert!(line.ends_with(&format!("\"expiresAt\":{},\"allowedKinds\":[7]}}}}", START.wall + 60_000)), "{line}");
    let text = refused(sign(&mut engine, A, at(1), 1, None)).1;
    assert_eq!(text, "Event kind 1 not in first session's scope [7]");
    let revoke = format!(r#"{{"method":"session_revoke","params":{{"token":"{first}"}}}}"#);
    assert_eq!(answered(ask(&mut engine, A, at(2), &revoke)).line, r#"{"revoked":true}"#);
    assert_eq!(later(&mut engine, at(3), r#"{"scope":"1"}"#), Err(Code::OutOfScope), "an end is no new beginning");
    engine.sweep(at(7200));
    for now in [at(60), at(7200)] {
        assert_eq!(later(&mut engine, now, "{}"), Err(Code::Expired));
        assert_eq!(refused(sign(&mut engine, A, now, 1, None)).0, Code::Expired);
    }
    granted(sign(&mut engine, B, at(7200), 1, None));
}

#[test]
fn under_once_a_session_handed_on_holds_whoever_takes_it() {
    let mut engine = engine_with(|s| s.start_sessions = StartSessions::Once);
    let handed = token(&start(&mut engine, A, START, r#"{"scope":"7"}"#).expect("a session"));
    granted(sign(&mut engine, B, START, 7, Some(&handed)));
    assert_eq!(start(&mut engine, B, START, r#"{"scope":"1"}"#).map_err(|(code, _)| code), Err(Code::OutOfScope));
    assert_eq!(refused(sign(&mut engine, B, START, 1, None)).0, Code::OutOfScope);
}

/// Checked: with the first session asked for without a token only, this fails.
#[test]
fn under_once_anothers_token_is_no_way_round_the_first_session() {
    let mut engine = engine_with(|s| s.start_sessions = StartSessions::Once);
    start(&mut engine, A, START, r#"{"scope":"1","ttl":60}"#).expect("A's first session");
    let wider = token(&start(&mut engine, B, START, r#"{"scope":"7,1"}"#).expect("B's first session"));
    let text = refused(sign(&mut engine, A, START, 7, Some(&wider))).1;
    assert_eq!(text, "Event kind 7 not in first session's scope [1]");
    assert_eq!(refused(sign(&mut engine, A, at(60), 1, Some(&wider))).0, Code::Expired);
    granted(sign(&mut engine, B, at(60), 7, Some(&wider)));
}

/// Encryption knows no kinds, but it ends with the first session, and uses no other account than that one's.
#[test]
fn under_once_encryption_ends_with_the_first_session_too() {
    let mut policy = policy_with(|s| {
        s.start_sessions = StartSessions::Once;
        s.methods = vec![Offer::SignEvent, Offer::Dm, Offer::Nip44];
        s.accounts = vec!["default".into(), "business".into()];
    });
    policy.ecdh_fd = Some(-1);
    let ledger = Ledger::new(&policy);
    let mut engine = Engine::new(policy, ledger);
    let encrypt = r#"{"method":"nip44_encrypt","params":{"plaintext":"x","peer_pubkey":"y"}}"#;
    let wrap = r#"{"method":"wrap_dm","params":{"recipientPubkey":"x","message":"hi"}}"#;
    let goes = |verdict: Verdict| matches!(verdict, Verdict::Errand(_));
    assert!(goes(ask(&mut engine, A, START, encrypt)), "before");
    start(&mut engine, A, START, r#"{"scope":"1","ttl":60}"#).expect("A's first session");
    start(&mut engine, B, START, r#"{"scope":"1","ttl":60,"account":"business"}"#).expect("B's, of another account");
    assert!(goes(ask(&mut engine, A, at(59), encrypt)) && goes(ask(&mut engine, A, at(59), wrap)));
    for method in [encrypt, wrap] {
        assert_eq!(refused(ask(&mut engine, B, at(59), method)).0, Code::OutOfScope);
        assert_eq!(refused(ask(&mut engine, A, at(60), method)).0, Code::Expired);
    }
}

#[test]
fn new_cgroups_of_one_uid_start_sessions_no_faster_than_its_share() {
    let mut engine = engine_with(|s| s.live_sessions = 1000);
    let started =
        (0..1000).filter(|cgroup| start(&mut engine, Principal { cgroup: Some(*cgroup), ..A }, START, "{}").is_ok());
    assert_eq!(started.count(), 6 * 128);
    start(&mut engine, Principal { cgroup: Some(7), ..B }, START, "{}").expect("another uid");
}

/// Checked: with the event's text made before the windows are looked at, this fails.
#[test]
fn full_windows_speak_before_the_event_is_made_and_one_too_large_uses_no_slot() {
    let mut engine =
        engine_with(|s| s.limits = Some(Limits { burst: 1, burst_window: 10, per_minute: 9, per_hour: 9 }));
    // Twice as long once it is escaped.
    let content = "\\n".repeat(MAX_EVENT / 2);
    let large = format!(r#"{{"method":"sign_event","params":{{"kind":1,"content":"{content}"}}}}"#);
    for _ in 0..3 {
        assert_eq!(refused(ask(&mut engine, A, START, &large)).0, Code::TooLarge);
    }
    granted(sign(&mut engine, A, START, 1, None));
    assert!(matches!(ask(&mut engine, A, START, &large), Verdict::Limited(..)));
}

#[test]
fn new_cgroups_bring_no_budgets_for_messages_without_end() {
    let mut policy = policy_with(|s| {
        s.methods = vec![Offer::Dm, Offer::Nip44];
        s.dm = Some(DmLimits { unwrap_burst: 5, unwrap_per_minute: 1, failed_per_minute: 3, wrap_per_minute: 2 });
        s.crypt = Some(CryptLimits { per_minute: 3, per_hour: 30 });
    });
    policy.ecdh_fd = Some(-1);
    let ledger = Ledger::new(&policy);
    let mut engine = Engine::new(policy, ledger);
    let wrap = r#"{"method":"wrap_dm","params":{"recipientPubkey":"x","message":"hi"}}"#;
    let encrypt = r#"{"method":"nip44_encrypt","params":{"plaintext":"x","peer_pubkey":"y"}}"#;
    let mut most = [0; 4];
    for cgroup in 0..10 {
        let who = Principal { cgroup: Some(cgroup), ..A };
        for _ in 0..10 {
            for (i, text) in [wrap, encrypt].iter().enumerate() {
                if let Verdict::Errand(spending) = ask(&mut engine, who, START, text) {
                    engine.spend(spending);
                    most[i] += 1;
                }
            }
            most[2] += u32::from(engine.unwrapped(who, true, START).is_ok());
            most[3] += u32::from(engine.unwrapped(who, false, START).is_ok());
        }
    }
    assert_eq!(most, [8, 12, 20, 12], "four times what one may");
    let (code, text) = refused(ask(&mut engine, B, START, wrap));
    assert_eq!(code, Code::RateLimited);
    assert!(text.ends_with("for the whole socket"), "{text}");
}
