//! The published and recorded test vectors of the providers' signatures.

use sandbox::signature;

#[test]
fn kie_signs_task_and_time_and_not_the_body() {
    let signed = signature::kie_callback("test-hmac-key", "0123456789abcdef0123456789abcdef", 1_760_000_000);
    assert_eq!(signed, "SpRsoRxVRKOH0lAMiEiyv3kDxM1OhxT1tbfPWB/6vPw=");
}

#[test]
fn creem_signs_the_raw_body() {
    let signed = signature::creem_webhook("whsec-test", br#"{"id":"evt_1"}"#);
    assert_eq!(signed, "89e206126a114e8f1fceb7a8183a9e23ed01aac274e207680ea65a015e8f120f");
}

#[test]
fn creem_salts_the_return_url() {
    let first = [("checkout_id", "ch_123"), ("subscription_id", "sub_123"), ("customer_id", "cust_123"), ("product_id", "prod_test")];
    assert_eq!(signature::creem_return(&first, "creem_test_apikey"), "05664cef46e243b681d532176ea48d7a99933663ad20b8a8de150cd2cfa9200c");
    let second = [
        ("request_id", "job_42"),
        ("checkout_id", "ch_1"),
        ("order_id", "ord_1"),
        ("customer_id", "cust_1"),
        ("subscription_id", "sub_1"),
        ("product_id", "prod_1"),
    ];
    let expected = "bcee07374556fd4c3ec899003045e3c8ba80cb030c4dc2277f7558de2316901d";
    assert_eq!(signature::creem_return(&second, "creem_test_abc"), expected);
    let with_empty = [&second[..], &[("units", ""), ("discount", "null")]].concat();
    assert_eq!(signature::creem_return(&with_empty, "creem_test_abc"), expected);
}

#[test]
fn pkce_is_that_of_the_rfc() {
    let challenge = signature::pkce_challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    assert_eq!(challenge, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
}
