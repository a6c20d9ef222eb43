//! `WWW-Authenticate`: schemes are tokens in lower case, and a challenge has a token or parameters.

use tidegate::upstream::challenge;

#[test]
fn challenge() {
    crate::target!("challenge", |input: &[u8]| {
        let text = crate::text(input);
        for challenge in challenge::parse(text.lines()) {
            let scheme = challenge.scheme();
            assert!(!scheme.is_empty() && scheme.is_ascii() && !scheme.contains(char::is_whitespace));
            assert!(!scheme.bytes().any(|byte| byte.is_ascii_uppercase()));
            let has_parameter = ["realm", "service", "scope", "error"]
                .iter()
                .any(|name| challenge.find_parameter(name).is_some());
            assert!(challenge.token68().is_none() || !has_parameter);
        }
    });
}
