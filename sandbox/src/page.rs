//! The few HTML pages a person meets in the sandbox: one plain look for all of them.

use axum::response::Html;

/// A whole page. `title` is text, `body` is HTML made by the caller (who escapes what is not his).
pub(crate) fn page(title: &str, body: &str) -> Html<String> {
    let title = escape(title);
    Html(format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><link rel=icon href=\"data:,\">\
         <title>{title}</title><style>{STYLE}</style><main><p class=note>Sandbox: nothing here is real, no money moves.</p>\
         <h1>{title}</h1>{body}</main></html>"
    ))
}

/// Text made safe between tags and inside quoted attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

const STYLE: &str = "\
body{font:16px/1.5 system-ui,sans-serif;margin:0;background:#f5f5f7;color:#1d1d1f}\
main{max-width:56rem;margin:2rem auto;padding:1.5rem 2rem;background:#fff;border-radius:12px;box-shadow:0 1px 4px #0002}\
.narrow main,main.narrow{max-width:26rem}h1{font-size:1.4rem;margin:.2rem 0 1rem}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}\
.note{font-size:.8rem;color:#6e6e73;margin:0}.price{font-size:2rem;font-weight:600;margin:.5rem 0}\
.bad{color:#b00020;font-weight:600}.good{color:#1b7f3b;font-weight:600}\
button,.button{display:block;width:100%;box-sizing:border-box;text-align:left;font:inherit;padding:.7rem 1rem;margin:.4rem 0;\
border:1px solid #d2d2d7;border-radius:8px;background:#fff;color:inherit;text-decoration:none;cursor:pointer}\
button:hover,.button:hover{background:#f0f4ff;border-color:#7aa2ff}button.main{background:#1d5cff;color:#fff;border-color:#1d5cff;text-align:center}\
button.plain{text-align:center}input{font:inherit;width:100%;box-sizing:border-box;padding:.6rem;border:1px solid #d2d2d7;border-radius:8px}\
label{display:block;margin:.6rem 0 .2rem;font-size:.9rem}table{border-collapse:collapse;width:100%;font-size:.85rem}\
td,th{text-align:left;padding:.25rem .6rem .25rem 0;border-bottom:1px solid #eee}code{font-size:.85rem;background:#f2f2f4;padding:.1rem .3rem;border-radius:4px}";
