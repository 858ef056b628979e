//! Goal: who opens the address of residua in a browser sees how it stands, and sees it move. Method: the demo, and its page in headless
//! Chromium, which is asked what it shows and which pixels it drew. So it is with a map of `residua project`.

mod browser;
#[path = "../support/mod.rs"]
mod support;

use std::process::Command;
use std::time::Duration;

use browser::Browser;
use serde_json::{Value, json};
use support::{Process, http_get, wait_for};

/// As long as the demo takes, and more.
const LONG: Duration = Duration::from_secs(150);

/// A demo that serves, and its address.
fn demo() -> (Process, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_residua"));
    command.args(["demo", "--serve=127.0.0.1:0"]);
    let process = Process::spawn(command);
    let line = process.wait_for_line("metrics at http://", LONG);
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address").to_owned();
    (process, address)
}

fn text(browser: &mut Browser, id: &str) -> String {
    browser.value(&format!("document.getElementById('{id}')?.textContent")).as_str().unwrap_or_default().to_owned()
}

/// Pixels of a canvas in a colour of the page, about.
fn pixels(browser: &mut Browser, canvas: &str, colour: &str) -> u64 {
    let count = browser.value(&format!(
        "(() => {{ const c = at('{canvas}'), probe = document.createElement('canvas').getContext('2d'); \
         probe.fillStyle = colours()['{colour}']; probe.fillRect(0, 0, 1, 1); const [r, g, b] = probe.getImageData(0, 0, 1, 1).data; \
         const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0; \
         for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 30 && Math.abs(d[i] - r) + Math.abs(d[i + 1] - g) + Math.abs(d[i + 2] - b) < 24) n++; \
         return n; }})()"
    ));
    count.as_u64().unwrap_or_default()
}

#[test]
fn the_page_shows_scores_incidents_and_a_map_and_they_move() {
    let (process, address) = demo();
    let Some(mut browser) = Browser::open(&format!("http://{address}/")) else { return };
    wait_for("a page that says it scores", LONG, || (text(&mut browser, "state") == "scoring").then_some(()));
    assert_eq!(text(&mut browser, "topic"), "plant");
    let number = |browser: &mut Browser| text(browser, "scored").replace(',', "").parse::<u64>().unwrap_or(0);
    let before = number(&mut browser);
    wait_for("scored records to grow", LONG, || (number(&mut browser) > before + 500).then_some(()));

    // An incident with observed and expected of its sensors; they come and go.
    let rows = "[...document.querySelectorAll('.incident')].flatMap(i => [...i.querySelectorAll('tbody tr')].map(r => [...r.cells].map(c => c.textContent)))";
    let rows = wait_for("an open incident", LONG, || {
        let rows = browser.value(rows);
        rows.as_array().is_some_and(|rows| rows.len() >= 5).then_some(rows)
    });
    let cells: Vec<&str> = rows[0].as_array().expect("cells").iter().filter_map(Value::as_str).collect();
    assert!(cells.len() == 4 && cells[0].contains('.') && cells[1].ends_with(" %"), "{rows}");
    assert!(cells[2..].iter().all(|cell| cell.parse::<f64>().is_ok()), "{rows}");

    wait_for("a full picture", LONG, || {
        let shown =
            |browser: &mut Browser, what: &str| browser.value(what).as_str().and_then(|n| n.parse().ok()).unwrap_or(0);
        let (seconds, points) =
            (shown(&mut browser, "at('chart').dataset.seconds"), shown(&mut browser, "at('map').dataset.points"));
        (seconds >= 15 && points >= 100).then_some(())
    });
    let anomalies = browser.value("document.querySelectorAll('#anomalies tbody tr').length");
    assert!(anomalies.as_u64() >= Some(1), "{anomalies}");
    for canvas in ["chart", "map"] {
        let (calm, alarm) = (pixels(&mut browser, canvas, "calm"), pixels(&mut browser, canvas, "alarm"));
        assert!(calm > 100 && alarm > 20, "{canvas}: {calm} pixels of what is calm, {alarm} of what is flagged");
    }
    // Nothing but the page and its events was asked for, and nothing went wrong.
    let asked = browser.value("performance.getEntriesByType('resource').map(r => r.name)");
    let others = asked.as_array().expect("names").iter().filter_map(Value::as_str);
    let others: Vec<&str> = others.filter(|name| *name != format!("http://{address}/events")).collect();
    assert!(others.iter().all(|name| name.starts_with("data:")), "{others:?}");
    assert_eq!(text(&mut browser, "note"), "");

    // Under the mouse a record says whose it is.
    let place = browser.value(
        "(() => { const c = at('map'), b = c.getBoundingClientRect(), [x, y] = spot(last.points.at(-1), c.clientWidth, c.clientHeight); return [b.left + x, b.top + y]; })()",
    );
    browser.call("Input.dispatchMouseEvent", json!({"type": "mouseMoved", "x": place[0], "y": place[1]}));
    let tip = wait_for("a record under the mouse", LONG, || {
        let tip = text(&mut browser, "tip");
        if !tip.contains("score") {
            browser.call("Input.dispatchMouseEvent", json!({"type": "mouseMoved", "x": place[0], "y": place[1]}));
        }
        tip.contains("score").then_some(tip)
    });
    assert!(tip.starts_with("pump-"), "{tip}");

    // What a series is called is text, whatever it looks like.
    let shown = browser.value(
        "(() => { const name = '<img src=x onerror=alert(1)>', now = structuredClone(last); \
         now.incidents = [{ series: name, since: name, last: name, records: 1, peak: 2, sensors: [{ name, share: 1, observed: 1, expected: 2 }] }]; \
         now.anomalies = [{ time: name, series: name, score: 2, sensor: name, observed: null, expected: 1 }]; now.open = 25; show(now); \
         return [document.images.length, at('incidents').textContent.includes(name), at('anomalies').textContent.includes(name), at('open').textContent]; })()",
    );
    assert_eq!(shown, json!([0, true, true, " (the latest 1 of 25)"]));

    let picture = browser.call("Page.captureScreenshot", json!({"format": "png"}));
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("page.png.base64");
    std::fs::write(file, picture["data"].as_str().unwrap_or_default()).expect("write the picture");

    // Residua ends while somebody looks, and the page says so.
    process.signal("TERM");
    wait_for("the page to miss its server", LONG, || (text(&mut browser, "state") == "no answer").then_some(()));
    process.wait(Duration::from_secs(20));
}

#[test]
fn the_page_is_allowed_nothing_from_elsewhere() {
    let (process, address) = demo();
    let page = http_get(&address, "/").expect("the page");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").unwrap_or_default();
    assert!(policy.contains("default-src 'none'") && policy.contains("connect-src 'self'"), "{policy}");
    let text = page.body.replace("href=\"data:,\"", "");
    for loads in ["http://", "https://", "src=", "href=", "url(", "@import", "innerHTML"] {
        assert!(!text.contains(loads), "the page has {loads}");
    }
    process.signal("TERM");
    process.wait(Duration::from_secs(20));
}

#[test]
fn on_a_map_of_project_a_record_shows_itself_under_the_mouse() {
    let dir = tempfile::tempdir().expect("create a folder");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let run = |args: &[&str]| {
        let ended = Command::new(env!("CARGO_BIN_EXE_residua")).args(args).output().expect("run residua");
        assert!(ended.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ended.stderr));
    };
    let [plant, rows, model, map] = ["plant.csv", "rows.csv", "m.safetensors", "map.html"].map(at);
    run(&["demo", "--plant-file", &plant]);
    let text = std::fs::read_to_string(&plant).expect("read the plant");
    let some: Vec<&str> = text.lines().take(2_001).collect();
    std::fs::write(&rows, some.join("\n")).expect("write rows");
    run(&["train", "file", &rows, "--series", "pump", "--ignore", "label", "--steps", "200", "--out", &model]);
    let project = ["project", &rows, "--series", "pump", "--model", &model, "--label", "label", "--steps", "200"];
    run(&[&project[..], &["--out", &map]].concat());
    let Some(mut browser) = Browser::open(&format!("file://{map}")) else { return };
    wait_for("the map", LONG, || {
        browser.value("document.querySelectorAll('canvas').length").as_u64().filter(|n| *n == 2)
    });
    let place = browser.value(
        "(() => { const c = maps[0], b = c.getBoundingClientRect(), [x, y] = place(0, rows[5]); \
         return [b.left + x * b.width / c.width, b.top + y * b.height / c.height]; })()",
    );
    let tip = wait_for("a record under the mouse", LONG, || {
        browser.call("Input.dispatchMouseEvent", json!({"type": "mouseMoved", "x": place[0], "y": place[1]}));
        let tip = browser.value("tip.hidden ? '' : tip.textContent");
        tip.as_str().filter(|tip| !tip.is_empty()).map(str::to_owned)
    });
    assert!(tip.starts_with("row ") && tip.contains(", pump-") && tip.contains("score "), "{tip}");
    assert!(["motor.speed", "flow", "bearing.vibration"].iter().all(|sensor| tip.contains(sensor)), "{tip}");
    // The same record is marked on both maps.
    let drawn = "[0, 1].map(m => { const [x, y] = place(m, rows[under]), d = maps[m].getContext('2d').getImageData(Math.round(x) + 7, Math.round(y), 1, 1).data; return d[3]; })";
    let marked = browser.value(drawn);
    assert!(marked.as_array().is_some_and(|of| of.iter().all(|alpha| alpha.as_u64() > Some(0))), "{marked}");
}
