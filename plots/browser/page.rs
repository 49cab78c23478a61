//! A page in Chromium, driven over its DevTools protocol, and what the page did meanwhile.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use headless_chrome::protocol::cdp::types::Event;
use headless_chrome::protocol::cdp::{Emulation, Network, Page as Cdp};
use headless_chrome::{Browser, LaunchOptions, Tab};
use serde::de::DeserializeOwned;

/// Where distributions put their Chromium, in the order in which it is looked for.
const PLACES: [&str; 3] =
    ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/// Requests and complaints of a page.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Addresses that it asked for, its own first.
    pub(crate) requests: Vec<String>,
    /// Errors and warnings in the console, and exceptions that nobody caught.
    pub(crate) complaints: Vec<String>,
}

/// A page and the browser that shows it alone.
pub(crate) struct Page {
    tab: Arc<Tab>,
    seen: Arc<Mutex<Seen>>,
    // Ends its process when dropped.
    _browser: Browser,
}

impl Page {
    /// Returns a browser of its own, with an empty page.
    pub(crate) fn new() -> Self {
        let path = PLACES.iter().map(Path::new).find(|path| path.exists()).unwrap_or_else(|| {
            panic!("no Chromium in {PLACES:?}; plots/browser/install-deps.sh installs it")
        });
        let options = LaunchOptions::default_builder()
            .path(Some(path.to_owned()))
            // It shows only what this test wrote, and CI often runs it as root.
            .sandbox(false)
            .window_size(Some((1280, 900)))
            .build()
            .expect("options of the browser");
        let browser = Browser::new(options).expect("Chromium starts");
        let tab = browser.new_tab().expect("an empty page");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let noted = Arc::clone(&seen);
        tab.add_event_listener(Arc::new(move |event: &Event| note(&noted, event)))
            .expect("a listener");
        tab.enable_log().expect("events of the log");
        tab.enable_runtime().expect("events of the console");
        tab.call_method(Network::Enable {
            max_total_buffer_size: None,
            max_resource_buffer_size: None,
            max_post_data_size: None,
            report_direct_socket_traffic: None,
            enable_durable_messages: None,
        })
        .expect("events of the network");
        Self { tab, seen, _browser: browser }
    }

    /// Opens a file and waits until it is loaded.
    pub(crate) fn open(&self, file: &Path) {
        self.tab.navigate_to(&address(file)).expect("the address is one");
        self.tab.wait_until_navigated().expect("the page loads");
    }

    /// Returns what was asked for and complained about so far.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the value of an expression in the page.
    pub(crate) fn value<T: DeserializeOwned>(&self, expression: &str) -> T {
        let text = format!("JSON.stringify({expression})");
        let found = self.tab.evaluate(&text, false).expect("the expression is evaluated");
        let json = found.value.as_ref().and_then(|value| value.as_str());
        let json = json.unwrap_or_else(|| panic!("{expression}: {found:?}"));
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{expression}: {json}: {error}"))
    }

    /// Presses a key where the focus is.
    pub(crate) fn press(&self, key: &str) {
        self.tab.press_key(key).expect("the key is known");
    }

    /// Types letter by letter where the focus is.
    pub(crate) fn type_text(&self, text: &str) {
        self.tab.type_str(text).expect("the text is typed");
    }

    /// Clicks in the middle of an element.
    pub(crate) fn click(&self, selector: &str) {
        self.tab.wait_for_element(selector).and_then(|it| it.click().map(drop)).expect(selector);
    }

    /// Moves the pointer to the middle of an element.
    pub(crate) fn point_at(&self, selector: &str) {
        let found = self.tab.wait_for_element(selector);
        found.and_then(|it| it.scroll_into_view()?.move_mouse_over().map(drop)).expect(selector);
    }

    /// Sets the scheme that the reader prefers: `light` or `dark`.
    pub(crate) fn prefer(&self, scheme: &str) {
        let name = "prefers-color-scheme".to_owned();
        let feature = Emulation::MediaFeature { name, value: scheme.to_owned() };
        let media = Emulation::SetEmulatedMedia { media: None, features: Some(vec![feature]) };
        self.tab.call_method(media).expect("the scheme is set");
    }

    /// Sets the size of what is shown, in CSS pixels.
    pub(crate) fn resize(&self, width: u32, height: u32) {
        let metrics = Emulation::SetDeviceMetricsOverride {
            width,
            height,
            device_scale_factor: 1.0,
            mobile: width < 600,
            scale: None,
            screen_width: None,
            screen_height: None,
            position_x: None,
            position_y: None,
            dont_set_visible_size: None,
            screen_orientation: None,
            viewport: None,
            display_feature: None,
            device_posture: None,
        };
        self.tab.call_method(metrics).expect("the size is set");
    }

    /// Sets whether pages opened from now on may run scripts.
    pub(crate) fn allow_scripts(&self, allowed: bool) {
        let method = Emulation::SetScriptExecutionDisabled { value: !allowed };
        self.tab.call_method(method).expect("scripts are switched");
    }

    /// Returns a picture of what is shown, as PNG.
    pub(crate) fn picture(&self) -> Vec<u8> {
        let format = Cdp::CaptureScreenshotFormatOption::Png;
        self.tab.capture_screenshot(format, None, None, true).expect("a picture is taken")
    }
}

/// Returns the address of a file, whose path must need no escapes.
pub(crate) fn address(file: &Path) -> String {
    format!("file://{}", file.display())
}

fn note(seen: &Mutex<Seen>, event: &Event) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    match event {
        Event::NetworkRequestWillBeSent(sent) => {
            seen.requests.push(sent.params.request.url.clone());
        }
        Event::RuntimeConsoleAPICalled(call) => {
            seen.complaints.push(format!("console: {:?}", call.params.args));
        }
        Event::RuntimeExceptionThrown(thrown) => {
            let details = &thrown.params.exception_details;
            seen.complaints.push(format!("exception: {} {:?}", details.text, details.exception));
        }
        Event::LogEntryAdded(added) => {
            seen.complaints.push(format!("log: {}", added.params.entry.text));
        }
        _ => {}
    }
}
