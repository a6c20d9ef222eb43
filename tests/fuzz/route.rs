//! Request lines: `METHOD path?query`. What is accepted can be written in the client's own spelling,
//! safely for a header, and is then read back as the same.

use http::Method;
use tidegate::oci::ErrorCode;
use tidegate::server::route::{Target, parse};

#[test]
fn route() {
    crate::target!("route", |input: &[u8]| {
        let text = crate::text(input);
        let (method, uri) = text.split_once(' ').unwrap_or(("GET", &text));
        let Ok(method) = method.parse::<Method>() else { return };
        let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
        match parse(&method, path, query) {
            Ok(route) => {
                if let Target::Repository { name, .. } = &route.target {
                    assert!(name.len() <= 255);
                    assert!(!name.split('/').any(|part| matches!(part, "" | "." | "..")));
                }
                let link = route.link(&route.query);
                assert!(link.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"".contains(&byte)));
                let (path, query) =
                    link.split_once('?').map_or((&*link, None), |(path, query)| (path, Some(query)));
                assert_eq!(parse(&method, path, query), Ok(route));
            }
            Err(error) => {
                assert!(error.status().is_client_error());
                assert_eq!(error.allow().is_some(), error.status().as_u16() == 405);
                assert_ne!(error.code(), ErrorCode::Unknown);
            }
        }
    });
}
