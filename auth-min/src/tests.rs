//! The rule as tables.

use std::net::{IpAddr, SocketAddr};

use crate::{
    Authenticator, BearerToken, Denied, Fingerprint, Identity, TokenError, check_bind, check_host, is_loopback,
};

const TOKEN: &str = "correct-horse-battery-staple";

fn token() -> BearerToken {
    BearerToken::parse(TOKEN).expect("a token")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// LO-AUTH-02: loopback is 127.0.0.0/8 and `::1`, also when mapped into IPv6.
#[test]
fn loopback_addresses() {
    for local in ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1"] {
        assert!(is_loopback(ip(local)), "{local}");
    }
    for other in ["0.0.0.0", "::", "128.0.0.1", "192.168.1.2", "::ffff:10.0.0.1", "fe80::1"] {
        assert!(!is_loopback(ip(other)), "{other}");
    }
}

/// AUTH-1002, HME-002, HME-004: no address beyond loopback without a token; the refusal says what to set.
#[test]
fn the_bind_address_rule() {
    let addr = |text: &str| text.parse::<SocketAddr>().expect("an address");
    for (text, allowed_without_token) in
        [("127.0.0.1:1", true), ("[::1]:1", true), ("0.0.0.0:1", false), ("[::]:1", false), ("10.0.0.1:1", false)]
    {
        assert_eq!(check_bind(addr(text), false).is_ok(), allowed_without_token, "{text}");
        assert!(check_bind(addr(text), true).is_ok(), "{text}");
    }
    let refused = check_bind(addr("0.0.0.0:1"), false).expect_err("refused").to_string();
    assert!(refused.starts_with("NON_LOOPBACK_WITHOUT_TOKEN") && refused.contains("AUTH_TOKEN"));
}

/// LO-AUTH-01: the first six hex digits of SHA-256; of `abc` they are `ba7816` (FIPS 180-2, appendix B.1).
#[test]
fn the_fingerprint() {
    assert_eq!(Fingerprint::of(b"abc").as_str(), "ba7816");
    let identity = Identity::Token(BearerToken::parse("abc").expect("a token").fingerprint());
    assert_eq!(identity.to_string(), "token:ba7816");
    assert_eq!(Identity::Localhost.to_string(), "localhost");
}

/// What a caller got.
#[derive(Debug, PartialEq)]
enum Got {
    Local,
    Token,
    Missing,
    Bad,
    Unset,
}

fn got(verdict: Result<Identity, Denied>) -> Got {
    match verdict {
        Ok(Identity::Localhost) => Got::Local,
        Ok(Identity::Token(_)) => Got::Token,
        Err(Denied::Missing) => Got::Missing,
        Err(Denied::Bad) => Got::Bad,
        Err(Denied::Unset) => Got::Unset,
    }
}

/// AUTH-1001, AUTH-1004, AUTH-1006, LO-AUTH-04, ORCH-3810, ORCH-3035, C2, C3: for each way to configure a server, what a
/// caller gets with no token, a wrong one and the right one, first from loopback, then from elsewhere.
#[test]
fn the_rule() {
    use Got::{Bad, Local, Missing, Token};
    let right = format!("Bearer {TOKEN}");
    let headers: [Option<&[u8]>; 3] = [None, Some(b"Bearer wrong"), Some(right.as_bytes())];
    let cases = [
        // token, auth_optional, trust_proxy, from loopback, from elsewhere
        (false, None, false, [Local, Local, Local], [Missing, Bad, Bad]),
        (false, Some(true), false, [Local, Local, Local], [Missing, Bad, Bad]),
        (false, Some(false), false, [Missing, Bad, Bad], [Missing, Bad, Bad]),
        (true, None, false, [Missing, Bad, Token], [Missing, Bad, Token]),
        (true, Some(false), false, [Missing, Bad, Token], [Missing, Bad, Token]),
        (true, Some(true), false, [Local, Local, Token], [Missing, Bad, Token]),
        (true, Some(true), true, [Missing, Token, Token], [Missing, Bad, Token]),
        (false, None, true, [Missing, Token, Token], [Missing, Bad, Bad]),
    ];
    for (has_token, optional, proxy, near, far) in cases {
        let configured = has_token.then(token);
        let authenticator = Authenticator::new(configured.as_ref(), optional, proxy);
        for (peer, expected) in [("127.0.0.1", near), ("192.168.1.2", far)] {
            let verdicts = headers.map(|header| got(authenticator.check(ip(peer), header)));
            assert_eq!(verdicts, expected, "token {has_token}, optional {optional:?}, proxy {proxy}, from {peer}");
        }
    }
}

/// AUTH-1006: a trusted proxy may use any scheme, but it must have sent a credential.
#[test]
fn a_trusted_proxy_sends_a_credential() {
    let authenticator = Authenticator::new(None, None, true);
    for (header, expected) in
        [("Basic dTpw", Got::Token), ("Bearer", Got::Missing), ("Bearer  ", Got::Missing), ("", Got::Missing)]
    {
        assert_eq!(got(authenticator.check(ip("127.0.0.1"), Some(header.as_bytes()))), expected, "{header:?}");
    }
}

/// AUTH-1003: worker registration exempts nobody.
#[test]
fn workers_always_need_the_token() {
    let open = Authenticator::new(Some(&token()), Some(true), false);
    assert_eq!(open.require_token(None), Err(Denied::Missing));
    assert!(open.require_token(Some(format!("Bearer {TOKEN}").as_bytes())).is_ok());
    let without = Authenticator::new(None, None, false);
    assert_eq!(without.require_token(Some(b"Bearer x")), Err(Denied::Unset));
    assert!(Denied::Unset.hint().contains("AUTH_TOKEN"));
}

/// RFC 9110, section 11: the scheme's case does not matter; another scheme is no bearer token.
#[test]
fn headers() {
    let authenticator = Authenticator::new(Some(&token()), Some(false), false);
    for good in [format!("bearer {TOKEN}"), format!("BEARER   {TOKEN} "), format!(" Bearer\t{TOKEN}")] {
        assert!(authenticator.check(ip("::1"), Some(good.as_bytes())).is_ok(), "{good:?}");
    }
    let bad = [
        (format!("Basic {TOKEN}"), Denied::Missing),
        (TOKEN.to_owned(), Denied::Missing),
        (format!("Bearer{TOKEN}"), Denied::Missing),
        ("Bearer".to_owned(), Denied::Missing),
        ("Bearer ".to_owned(), Denied::Missing),
        (String::new(), Denied::Missing),
        (format!("Bearer {TOKEN}x"), Denied::Bad),
        (format!("Bearer {}", &TOKEN[1..]), Denied::Bad),
        (format!("Bearer {TOKEN} {TOKEN}"), Denied::Bad),
    ];
    for (header, denied) in bad {
        assert_eq!(authenticator.check(ip("::1"), Some(header.as_bytes())), Err(denied), "{header:?}");
    }
    assert_eq!(authenticator.check(ip("::1"), Some(&[0xff; 40])), Err(Denied::Missing));
}

/// LO-AUTH-04, LO-ERR-05: the codes, and texts that start with the symbolic name.
#[test]
fn codes() {
    assert_eq!((Denied::Missing.code(), Denied::Bad.code()), (40101, 40102));
    assert!(Denied::Missing.to_string().starts_with("MISSING_TOKEN: "));
    assert!(Denied::Bad.to_string().starts_with("BAD_TOKEN: "));
}

/// AUTH-1008: nothing that may reach a log shows the token.
#[test]
fn debug_output_hides_the_token() {
    let authenticator = Authenticator::new(Some(&token()), None, false);
    let shown = format!("{:?} {authenticator:?}", token());
    assert!(!shown.contains("horse"), "{shown}");
    assert!(shown.contains(token().fingerprint().as_str()), "{shown}");
}

/// A token is visible ASCII, so that a header carries it unchanged.
#[test]
fn what_may_be_a_token() {
    assert_eq!(BearerToken::parse(""), Err(TokenError::Empty));
    for bad in ["a b", " a", "a\n", "a\u{7f}", "schlüssel"] {
        assert_eq!(BearerToken::parse(bad), Err(TokenError::Unprintable), "{bad:?}");
    }
    assert!(BearerToken::parse("0123456789abcde").expect("a token").is_short());
    assert!(!BearerToken::parse("0123456789abcdef").expect("a token").is_short());
}

/// DESIGN section 8: over loopback the host must be loopback, or a web page reaches us by DNS rebinding.
#[test]
fn hosts() {
    let own = [
        "localhost",
        "LOCALHOST:8080",
        "127.0.0.1",
        "127.0.0.1:8080",
        "127.9.9.9:1",
        "[::1]",
        "[::1]:8080",
        "[::ffff:127.0.0.1]:80",
    ];
    for host in own {
        assert!(check_host(Some(host.as_bytes()), true).is_ok(), "{host}");
    }
    let foreign = [
        "",
        ":8080",
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "evil.example:localhost",
        "192.168.1.2",
        "[fe80::1]:80",
        "[::1",
        "::1",
        "0.0.0.0:80",
        "localhost:80a",
    ];
    for host in foreign {
        assert!(check_host(Some(host.as_bytes()), true).is_err(), "{host}");
        assert!(check_host(Some(host.as_bytes()), false).is_ok(), "{host}: off loopback the token decides");
    }
    assert!(check_host(None, true).is_ok());
    assert!(check_host(Some(&[0xff]), true).is_err());
}
