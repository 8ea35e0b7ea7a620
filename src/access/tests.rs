#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::*;

/// The examples of RFC 7515 appendix A.1 to A.3 sign the same claims.
const CLAIMS: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const HS256: (&str, &str, &str) = (
    r#"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"#,
    "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9",
    "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
);
const RS256: (&str, &str, &str) = (
    concat!(
        r#"{"kty":"RSA","e":"AQAB","n":""#,
        "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZ",
        "S-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2",
        "R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcD",
        r#"TW9gb54h4FRWyuXpoQ"}"#
    ),
    "eyJhbGciOiJSUzI1NiJ9",
    concat!(
        "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CU",
        "Ar7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_d",
        "O--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0ig",
        "cN_IoypGlUPQGe77Rw"
    ),
);
const ES256: (&str, &str, &str) = (
    concat!(
        r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","#,
        r#""y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#
    ),
    "eyJhbGciOiJFUzI1NiJ9",
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
);
/// RFC 8037 appendix A.4, whose payload is no object of claims.
const EDDSA: &str = concat!(
    "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4",
    "iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
);
const EDDSA_KEY: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

/// When the examples of RFC 7515 are good.
const EXAMPLES_MS: u64 = 1_300_819_000_000;
const SECRET: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
const NOW: u64 = 1_800_000_000;

fn set(keys: &[&str]) -> KeySet {
    KeySet::from_jwks(&format!("{{\"keys\":[{}]}}", keys.join(","))).unwrap()
}

fn with_jwks(keys: &[&str]) -> Access {
    let jwks = FromFile { path: None, content: Arc::new(set(keys)) };
    Access { jwks, ..Access::default() }
}

fn with_secret() -> Access {
    Access { secret: Some(Key::secret(SECRET).unwrap()), ..Access::default() }
}

fn base64(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// A token of this header and these claims, signed with the secret whatever the header says.
fn token(header: &str, claims: &str) -> String {
    let signed = [base64(header), base64(claims)].join(".");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), signed.as_bytes());
    [signed, base64(signature)].join(".")
}

fn claims(claims: &str) -> String {
    token(r#"{"alg":"HS256"}"#, claims)
}

/// A token that is good for ten minutes, with these claims too.
fn good(more: &str) -> String {
    claims(&format!("{{\"exp\":{}{more}}}", NOW + 600))
}

fn check(access: &Access, token: &str) -> Result<Arc<Grant>, AuthRefusal> {
    access.verify(token.as_bytes(), NOW * 1000).map(|verified| verified.grant)
}

#[test]
fn the_examples_of_the_standards() {
    for (key, header, signature) in [HS256, RS256, ES256] {
        let access = with_jwks(&[key]);
        let token = [header, CLAIMS, signature].join(".");
        let grant = access.verify(token.as_bytes(), EXAMPLES_MS).unwrap().grant;
        assert_eq!((grant.user.as_deref(), grant.expires()), (None, Some(1_300_819_380)));
        assert_eq!(check(&access, &token), Err(AuthRefusal::Expired));
        let other = [header, &CLAIMS.replace("pc3Mi", "pc3Mj"), signature].join(".");
        assert_eq!(access.verify(other.as_bytes(), EXAMPLES_MS), Err(AuthRefusal::Signature));
    }
    let keys = set(&[EDDSA_KEY]);
    let (signed, _) = jwt::verify(EDDSA.as_bytes(), || keys.keys()).unwrap();
    assert_eq!(signed, b"Example of Ed25519 signing");
}

#[test]
fn keys_are_chosen_by_name_or_tried_in_turn() {
    let token = [HS256.1, CLAIMS, HS256.2].join(".");
    let all = with_jwks(&[
        RS256.0,
        ES256.0,
        EDDSA_KEY,
        r#"{"kty":"oct","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}"#,
        HS256.0,
    ]);
    assert!(all.verify(token.as_bytes(), EXAMPLES_MS).is_ok(), "the second secret");
    let named = with_jwks(&[r#"{"kty":"oct","kid":"a","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}"#]);
    let called = |kid: &str| token_of(&format!("{{\"alg\":\"HS256\",\"kid\":\"{kid}\"}}"));
    assert!(check(&named, &called("a")).is_ok() && check(&named, &good("")).is_ok());
    assert_eq!(check(&named, &called("b")), Err(AuthRefusal::UnknownKey));
}

#[test]
fn a_token_is_checked_with_a_few_keys_and_its_own_first() {
    let secret = |kid: &str, byte: u8| {
        let (kid, k) = (if kid.is_empty() { String::new() } else { format!("\"kid\":\"{kid}\",") }, base64([byte; 32]));
        format!("{{\"kty\":\"oct\",{kid}\"k\":\"{k}\"}}")
    };
    let own = format!("{{\"kty\":\"oct\",\"kid\":\"own\",\"k\":\"{}\"}}", base64(SECRET));
    let with = |others: &[String]| {
        let keys: Vec<&str> = others.iter().chain([&own]).map(String::as_str).collect();
        with_jwks(&keys)
    };
    let named: Vec<String> = (0..4).map(|n| secret(&format!("k{n}"), n)).collect();
    let nameless: Vec<String> = (0..4).map(|n| secret("", n)).collect();
    assert!(check(&with(&named[1..]), &good("")).is_ok(), "the fourth");
    assert_eq!(check(&with(&named), &good("")), Err(AuthRefusal::TooManyKeys));
    for others in [&named, &nameless] {
        assert!(
            check(&with(others), &token_of("{\"alg\":\"HS256\",\"kid\":\"own\"}")).is_ok(),
            "whatever else there is"
        );
    }
    let forged = token_of("{\"alg\":\"HS256\",\"kid\":\"k0\"}");
    assert_eq!(check(&with(&named), &forged), Err(AuthRefusal::Signature), "no other key is meant");
    assert_eq!((with(&nameless).untried(), with(&named).untried()), (None, None));
    let five: Vec<String> = (0..5).map(|n| secret("", n)).collect();
    assert_eq!(with(&five).untried(), Some(("HS256", 5)));
}

#[test]
fn a_grant_is_reviewed_without_its_token() {
    let jwk = |kid: &str, byte: u8| format!("{{\"kty\":\"oct\",\"kid\":\"{kid}\",\"k\":\"{}\"}}", base64([byte; 32]));
    let patterns = |text: &str| vec![Pattern::parse(text).unwrap()];
    let first = Access {
        issuers: vec!["a".into(), "b".into()],
        audiences: vec!["x".into(), "y".into()],
        subscribe: patterns("room/*"),
        ..with_secret()
    };
    let plain = check(&first, &good(",\"iss\":\"a\",\"aud\":[\"z\",\"y\"]")).unwrap();
    let named = check(&first, &good(",\"iss\":\"a\",\"aud\":\"x\",\"holdline\":{\"subscribe\":[\"t\"]}")).unwrap();
    let review = |access: &Access, grant: &Arc<Grant>| access.review(Some(grant), false);
    let (other_keys, all_issuers) = (jwk("k", 7), Access { issuers: vec![], ..first.clone() });
    for access in [&first, &all_issuers, &Access { audiences: vec!["y".into(), "x".into()], ..first.clone() }] {
        assert_eq!((review(access, &plain), review(access, &named)), (Standing::Same, Standing::Same));
    }
    for access in [
        with_jwks(&[&other_keys]),
        Access { issuers: vec!["b".into()], ..first.clone() },
        Access { audiences: vec!["z".into()], ..first.clone() },
        Access { audiences: vec![], ..first.clone() },
        Access { claim: "other".into(), ..first.clone() },
    ] {
        assert_eq!(
            (review(&access, &plain), review(&access, &named)),
            (Standing::Lapsed, Standing::Lapsed),
            "{access:?}"
        );
    }
    let narrow = Access { subscribe: patterns("room/1"), ..first.clone() };
    assert_eq!(review(&narrow, &named), Standing::Same, "it names its topics itself");
    let Standing::Other(grant) = review(&narrow, &plain) else { panic!("it names none") };
    assert!(grant.may_subscribe("room/1") && !grant.may_subscribe("room/2"));
    assert_eq!((grant.user.as_deref(), grant.expires()), (plain.user.as_deref(), plain.expires()));
    assert_eq!(review(&Access::default(), &plain), Standing::Free);
    assert_eq!(first.review(None, false), Standing::Lapsed);
    assert_eq!(Access::default().review(None, false), Standing::Same);
    assert_eq!(first.review(None, true), Standing::Same, "no operator has a key");
    let endless = check(&Access { must_expire: false, ..with_secret() }, &claims("{}")).unwrap();
    assert_eq!(review(&with_secret(), &endless), Standing::Lapsed);
}

fn token_of(header: &str) -> String {
    token(header, &format!("{{\"exp\":{}}}", NOW + 600))
}

#[test]
fn a_key_has_one_algorithm() {
    let access = with_secret();
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"None"}"#,
        r#"{"alg":"NONE"}"#,
        r#"{"alg":""}"#,
        r#"{"alg":"HS512"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":"hs256"}"#,
    ] {
        assert_eq!(check(&access, &token_of(header)), Err(AuthRefusal::Algorithm), "{header}");
    }
    let unsigned = format!("{}.{}.", base64(r#"{"alg":"none"}"#), base64("{\"exp\":9999999999}"));
    assert_eq!(check(&access, &unsigned), Err(AuthRefusal::Algorithm));
    // A public key is no secret, though all know its bytes.
    let header = base64(r#"{"alg":"HS256"}"#);
    let signed = [header.as_str(), CLAIMS].join(".");
    for public in [RS256.0, ES256.0, EDDSA_KEY] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, public.as_bytes());
        let forged = [signed.clone(), base64(hmac::sign(&key, signed.as_bytes()))].join(".");
        assert_eq!(with_jwks(&[public]).verify(forged.as_bytes(), EXAMPLES_MS), Err(AuthRefusal::Algorithm));
    }
}

#[test]
fn what_is_no_token_is_malformed() {
    let access = with_secret();
    let (header, body) = (base64(r#"{"alg":"HS256"}"#), base64("{}"));
    for text in [
        "a".to_owned(),
        "..".to_owned(),
        "a.b".to_owned(),
        "a.b.c.d".to_owned(),
        format!("{header}.{body}.ab=="),
        format!("{header}.{body}.a b"),
        format!("{header}=.{body}.ab"),
        token_of(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#),
        token_of(r#"{"alg":"HS256","alg":"none"}"#),
        token_of(r#"{"kid":"a"}"#),
        token_of("[]"),
        token_of("[\"HS256\",null,null]"),
    ] {
        assert_eq!(check(&access, &text), Err(AuthRefusal::Malformed), "{text}");
    }
    for text in [
        claims("[]"),
        claims("{\"exp\":1900000000,\"exp\":1}"),
        claims("{\"exp\":\"1900000000\"}"),
        claims("{\"exp\":-1}"),
        claims("{\"exp\":1e300}"),
        good(",\"sub\":7"),
        good(",\"holdline\":[]"),
        good(",\"holdline\":{\"subscribe\":\"news\"}"),
        good(",\"holdline\":{\"subscribe\":[\"a b\"]}"),
        good(",\"holdline\":{\"publish\":[\"***\"]}"),
        good(&format!(",\"holdline\":{{\"publish\":[{}\"x\"]}}", "\"x\",".repeat(64))),
    ] {
        assert_eq!(check(&access, &text), Err(AuthRefusal::Claims), "{text}");
    }
    assert_eq!(check(&access, &claims("{}")), Err(AuthRefusal::NoExpiry));
    assert_eq!(check(&access, ""), Err(AuthRefusal::Missing));
    assert_eq!(check(&access, &good(&format!(",\"x\":\"{}\"", "y".repeat(8192)))), Err(AuthRefusal::TooLong));
    let deep = format!(",\"x\":{}{}", "[".repeat(2000), "]".repeat(2000));
    assert_eq!(check(&access, &good(&deep)), Err(AuthRefusal::Claims));
}

#[test]
fn a_token_has_its_time() {
    let access = Access { leeway: Duration::from_secs(10), ..with_secret() };
    let seen = |text: String| check(&access, &claims(&text)).map(|grant| grant.expires());
    assert_eq!(seen(format!("{{\"exp\":{}}}", NOW - 9)), Ok(Some(NOW - 9)));
    assert_eq!(seen(format!("{{\"exp\":{}.5}}", NOW + 9)), Ok(Some(NOW + 9)));
    assert_eq!(seen(format!("{{\"exp\":{}}}", NOW - 10)), Err(AuthRefusal::Expired));
    for claim in ["nbf", "iat"] {
        assert!(seen(format!("{{\"exp\":{},\"{claim}\":{}}}", NOW + 60, NOW + 10)).is_ok());
        let early = format!("{{\"exp\":{},\"{claim}\":{}}}", NOW + 60, NOW + 11);
        assert_eq!(seen(early), Err(AuthRefusal::NotYet), "{claim}");
    }
    let patient = Access { must_expire: false, ..access.clone() };
    assert_eq!(check(&patient, &claims("{}")).map(|grant| grant.expires()), Ok(None));
}

#[test]
fn a_token_is_from_and_for_somebody() {
    let access = Access { issuers: vec!["a".into(), "b".into()], audiences: vec!["x".into()], ..with_secret() };
    assert!(check(&access, &good(",\"iss\":\"b\",\"aud\":\"x\"")).is_ok());
    assert!(check(&access, &good(",\"iss\":\"a\",\"aud\":[\"y\",\"x\"]")).is_ok());
    for (more, refusal) in [
        (",\"aud\":\"x\"", AuthRefusal::Issuer),
        (",\"iss\":\"c\",\"aud\":\"x\"", AuthRefusal::Issuer),
        (",\"iss\":\"a\"", AuthRefusal::Audience),
        (",\"iss\":\"a\",\"aud\":[]", AuthRefusal::Audience),
        (",\"iss\":\"a\",\"aud\":\"y\"", AuthRefusal::Audience),
    ] {
        assert_eq!(check(&access, &good(more)), Err(refusal), "{more}");
    }
    assert_eq!(check(&with_secret(), &good(",\"aud\":\"x\"")), Err(AuthRefusal::Audience));
}

#[test]
fn claims_name_topics() {
    let read = |access: &Access, more: &str| check(access, &good(more)).unwrap();
    let access = with_secret();
    let grant = read(&access, ",\"sub\":\"ann\",\"holdline\":{\"subscribe\":[\"room/*\"],\"publish\":[\"room/7\"]}");
    assert_eq!(grant.user.as_deref(), Some("ann"));
    assert!(grant.may_subscribe("room/8") && !grant.may_subscribe("room/8/x") && !grant.may_subscribe("news"));
    assert!(grant.may_publish("room/7") && !grant.may_publish("room/8") && !grant.is_operator);
    let none = read(&access, "");
    assert!(!none.may_subscribe("news") && !none.may_publish("news"));
    let all = vec![Pattern::parse("**").unwrap()];
    let generous = Access { subscribe: all, claim: "https://example.com/t".into(), ..access };
    assert!(read(&generous, "").may_subscribe("news"));
    assert!(!read(&generous, ",\"https://example.com/t\":{}").may_subscribe("news"), "it names none");
    assert!(read(&generous, ",\"https://example.com/t\":{\"admin\":true}").is_operator);
}

#[test]
fn a_token_may_be_good_once() {
    let access = Access { one_time: true, ..with_secret() };
    assert_eq!(check(&access, &good("")), Err(AuthRefusal::Claims));
    let once = |more: &str| access.verify(good(more).as_bytes(), NOW * 1000).unwrap().once.unwrap();
    let (mut seen, first) = (Seen::default(), once(",\"jti\":\"1\""));
    assert_eq!(seen.take(first, NOW), Ok(()));
    assert_eq!(seen.take(first, NOW), Err(AuthRefusal::Replayed));
    assert_eq!(seen.take(once(",\"jti\":\"2\""), NOW), Ok(()));
    assert_eq!(seen.take(once(",\"jti\":\"1\",\"iss\":\"b\""), NOW), Ok(()), "another issuer's number");
    assert_eq!(first.1, NOW + 630, "as long as it would be taken");
}

#[test]
fn used_tokens_are_remembered_while_there_is_room() {
    let mut seen = Seen::default();
    let number = |n: usize| (n as u128).to_be_bytes();
    for n in 0..Seen::TOKENS_MAX {
        assert_eq!(seen.take((number(n), 100 + n as u64 % 2), 1), Ok(()));
    }
    let next = (number(Seen::TOKENS_MAX), 200);
    assert_eq!(seen.take(next, 1), Err(AuthRefusal::ReplaysFull));
    assert_eq!(seen.take((number(7), 200), 1), Err(AuthRefusal::Replayed));
    assert_eq!(seen.take(next, 100), Ok(()), "half have expired");
}

#[test]
fn sets_of_keys() {
    let ok = |keys: &str| KeySet::from_jwks(keys).map(|set| set.keys().count());
    let skipped = r#"{"kty":"EC","crv":"P-521","x":"AA","y":"AA"},{"kty":"new"},{"kty":"RSA","use":"enc"}"#;
    assert_eq!(ok(&format!("{{\"keys\":[{skipped},{EDDSA_KEY}]}}")), Ok(1));
    let pinned = RS256.0.replace("{\"kty\"", "{\"alg\":\"RS512\",\"kty\"");
    for (text, said) in [
        (format!("{{\"keys\":[{skipped}]}}"), "has no key for"),
        (format!("{{\"keys\":[{pinned}]}}"), "has no key for"),
        ("{}".to_owned(), "is no JSON Web Key Set"),
        ("{\"keys\":[{\"kty\":\"oct\",\"k\":\"c2hvcnQ\"}]}".to_owned(), "number 1, that has 5 bytes"),
        ("{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}]}".to_owned(), "modulus of 24 bits"),
        ("{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AQAB\"}]}".to_owned(), "not 32 bytes"),
        ("{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"A+\"}]}".to_owned(), "no base64url"),
    ] {
        assert!(ok(&text).unwrap_err().0.contains(said), "{text}: {:?}", ok(&text));
    }
}

#[test]
fn public_keys_in_pem() {
    let pair = Ed25519KeyPair::from_seed_unchecked(SECRET).unwrap();
    // RFC 8410 section 4: the structure has one form, with the point at its end.
    let der = [&b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"[..], pair.public_key().as_ref()].concat();
    let base64_of = |der: &[u8]| base64::engine::general_purpose::STANDARD.encode(der);
    let pem = |der: &[u8]| format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", base64_of(der));
    let keys = KeySet::from_pem(&format!("# ours\n{}{}", pem(&der), pem(&der))).unwrap();
    assert_eq!(keys.keys().count(), 2);
    let signed = [base64(r#"{"alg":"EdDSA"}"#), base64(format!("{{\"exp\":{}}}", NOW + 9))].join(".");
    let token = [signed.clone(), base64(pair.sign(signed.as_bytes()))].join(".");
    let file = FromFile { path: None, content: Arc::new(keys) };
    assert!(check(&Access { public_keys: vec![file], ..Access::default() }, &token).is_ok());
    for (text, said) in [
        ("", "has no PUBLIC KEY"),
        ("-----BEGIN PRIVATE KEY-----", "a private key"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA", "without an end"),
        ("-----BEGIN PUBLIC KEY-----\n?\n-----END PUBLIC KEY-----", "no base64"),
        (&pem(&der[..20]), "neither RSA"),
        (&pem(&[&der[..], b"x"].concat()), "neither RSA"),
    ] {
        assert!(KeySet::from_pem(text).unwrap_err().0.contains(said), "{text}");
    }
}

#[test]
fn api_keys_are_compared_by_their_hash() {
    let text = "[[key]]\nname = \"a\"\nkey = \"0123456789abcdef\"\npublish = [\"t/*\"]\n\
                [[key]]\nname = \"b\"\nsha256 = \"a6271e50a03a0bab40c5e3e37a4dfa4adbfba5ad1ad4a6d73c6a1ed0a0a8f8b1\"\nadmin = true\n";
    let keys = ApiKeys::from_toml(text).unwrap();
    assert!(keys.names_operators() && keys.len() == 2);
    let access = Access { api_keys: FromFile { path: None, content: Arc::new(keys) }, ..Access::default() };
    let grant = check(&access, "0123456789abcdef").unwrap();
    assert!(grant.may_publish("t/1") && !grant.may_subscribe("t/1") && grant.user.as_deref() == Some("a"));
    assert_eq!(check(&access, "0123456789abcdeg"), Err(AuthRefusal::UnknownKey));
    assert!(!format!("{access:?}").contains("0123"));
    for (text, said) in [
        ("[[key]]\nname = \"a\"\nkey = \"short\"\n", "5 bytes"),
        ("[[key]]\nname = \"a\"\n", "needs either"),
        ("[[key]]\nname = \"a\"\nsha256 = \"ab\"\n", "64 digits"),
        ("[[key]]\nkey = \"0123456789abcdef\"\n", "line 1: missing field `name`"),
        ("[[key]]\nname = \"a\"\nky = \"0123456789abcdef\"\n", "line 3"),
        ("[[key]]\nname = \"a\"\nkey = \"0123456789abcdef\"\npublish = [\"a b\"]\n", "space"),
        (&text.replace("\"b\"", "\"a\""), "there twice"),
    ] {
        assert!(ApiKeys::from_toml(text).unwrap_err().0.contains(said), "{text}: {:?}", ApiKeys::from_toml(text));
    }
}

#[test]
fn nobody_in_particular_may_do_what_is_said() {
    assert_eq!(with_secret().anonymous(), Err(AuthRefusal::Missing));
    let access = Access { anonymous_subscribe: vec![Pattern::parse("public/**").unwrap()], ..with_secret() };
    let grant = access.anonymous().unwrap();
    assert!(grant.may_subscribe("public/a/b") && !grant.may_publish("public/a") && grant.user.is_none());
    assert!(!Access::default().is_on() && access.is_on());
}

#[test]
fn who_shows_nothing_may_do_no_more_where_there_are_no_keys() {
    let access = Access { anonymous_subscribe: vec![Pattern::parse("public/**").unwrap()], ..Access::default() };
    assert!(access.is_on() && !access.has_keys());
    let grant = access.anonymous().unwrap();
    assert!(grant.may_subscribe("public/a") && !grant.may_subscribe("private/a") && !grant.may_publish("public/a"));
    assert_eq!(access.verify(b"whatever it is", NOW * 1000), Err(AuthRefusal::UnknownKey));
    assert_eq!(access.review(None, false), Standing::Other(grant));
    let file = FromFile { path: Some("keys.toml".into()), content: Arc::default() };
    let emptied = Access { api_keys: file, ..Access::default() };
    assert!(emptied.is_on());
    assert_eq!(emptied.anonymous(), Err(AuthRefusal::Missing));
    assert_eq!(emptied.review(None, false), Standing::Lapsed);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    /// Whatever comes, it is refused and nothing panics: nobody guesses a signature.
    #[test]
    fn any_bytes_are_refused(token in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(with_secret().verify(&token, NOW * 1000).is_err());
    }

    /// Bytes of a good token that are changed make it a bad one.
    #[test]
    fn any_change_is_found(place: prop::sample::Index, to: u8) {
        let mut token = good(",\"sub\":\"ann\"").into_bytes();
        let place = place.index(token.len());
        prop_assume!(token[place] != to);
        token[place] = to;
        prop_assert!(with_secret().verify(&token, NOW * 1000).is_err());
    }

    /// Signed or not, what a payload and a header say is read without a panic.
    #[test]
    fn any_claims_are_read(header in "\\PC{0,60}", payload in "\\PC{0,120}", der in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = check(&with_secret(), &token(&header, &payload));
        let _ = check(&with_secret(), &claims(&payload));
        let _ = der::public_key(&der);
    }
}

#[test]
fn a_file_that_is_wrong_is_not_told_with_its_secrets() {
    const SECRET: &str = "tell-nobody, expected or not";
    let jwks = |text: &str| KeySet::from_jwks(&text.replace("SECRET", SECRET)).unwrap_err().0;
    let keys = |text: &str| ApiKeys::from_toml(&text.replace("SECRET", SECRET)).unwrap_err().0;
    for (said, expected) in [
        (jwks("{\"keys\":\"SECRET\"}"), "invalid type: string, expected a sequence at line 1"),
        (jwks("{\"keys\":[\"SECRET\"]}"), "invalid type: string, expected struct Jwk at line 1"),
        (jwks("\"SECRET\""), "invalid type: string, expected struct Jwks at line 1"),
        (jwks("{\"keys\":[{}]}"), "missing field `kty` at line 1"),
        (keys("key = \"SECRET\""), "line 1: invalid type: string, expected a sequence"),
        (keys("\n[[key]]\nname = \"a\"\nadmin = \"SECRET\""), "line 4: invalid type: string, expected a boolean"),
        (keys("\n[[key]]\nnam = \"SECRET\""), "line 3: unknown field `nam`"),
        (keys("[[key]]\nname = \"a\"\nkey = SECRET"), "line 3: "),
    ] {
        assert!(said.contains(expected) && !said.contains("nobody"), "{said}");
    }
}
