//! What leaves for a flagged record; its form on the wire is `deploy/schema/alert.schema.json`.

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::{EventTime, Offset, Position, summary};

/// A flagged record, explained. All numbers are finite.
#[derive(Debug, Clone, Copy)]
pub struct Alert<'a> {
    pub topic: &'a str,
    pub position: Position,
    pub time: EventTime,
    pub series: &'a str,
    /// 1.0 is the threshold.
    pub score: f64,
    /// Error of this record alone, in units of the threshold: below 1 if it is earlier records of the series that keep it flagged.
    pub record_score: f64,
    /// Where the incident that it belongs to began, in the same partition; none before there are enough flagged records for one.
    pub incident: Option<Offset>,
    /// The model's fingerprint, 16 hexadecimal digits.
    pub model: &'a str,
    /// Those with the largest shares, at most 64, the largest first.
    pub sensors: &'a [Sensor<'a>],
    /// The share of all sensors that are not named; with the named ones it makes 1.
    pub other_share: f64,
}

/// What one sensor did to a score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sensor<'a> {
    pub name: &'a str,
    /// In the sensor's own unit; None if the record did not hold it.
    pub observed: Option<f64>,
    /// In the sensor's own unit.
    pub expected: f64,
    /// Its part of the error that made the score, 0 to 1; 0 if it is imputed.
    pub share: f64,
    pub imputed: bool,
}

/// How far beyond the threshold a score is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Below 2: no stranger by itself than one ordinary record in a hundred, and yet the series is anomalous. Where records have no
    /// order: only the second rule flags it.
    Warning,
    /// From 2 to below 3.
    Severe,
    /// From 3: its level is twice that of such a record, its distance about squared.
    Critical,
}

impl Severity {
    /// Every name, from the least severe.
    pub const NAMES: [&'static str; 3] = ["warning", "severe", "critical"];

    pub fn of_score(score: f64) -> Severity {
        match score {
            s if s >= 3.0 => Severity::Critical,
            s if s >= 2.0 => Severity::Severe,
            _ => Severity::Warning,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Severe => "severe",
            Severity::Critical => "critical",
        }
    }
}

impl Alert<'_> {
    /// `topic-partition-offset`: the same for the same record, whatever happened in between.
    pub fn id(&self) -> String {
        self.position.id(self.topic)
    }

    pub fn severity(&self) -> Severity {
        Severity::of_score(self.score)
    }

    /// The alert in one sentence. It names at most three sensors.
    pub fn summary(&self) -> String {
        summary::sentence(self)
    }

    /// Appends the alert as JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
        // Only a writer that fails or a map with odd keys could make this fail; here are neither.
        serde_json::to_writer(out, self).expect("an alert serialises into memory");
    }
}

impl Serialize for Alert<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let incident = |start| Position { offset: start, ..self.position }.id(self.topic);
        let mut alert = serializer.serialize_struct("Alert", 15)?;
        alert.serialize_field("id", &self.id())?;
        alert.serialize_field("time", &self.time)?;
        alert.serialize_field("series", self.series)?;
        alert.serialize_field("topic", self.topic)?;
        alert.serialize_field("partition", &self.position.partition)?;
        alert.serialize_field("offset", &self.position.offset)?;
        alert.serialize_field("score", &self.score)?;
        alert.serialize_field("record_score", &self.record_score)?;
        alert.serialize_field("threshold", &1.0)?;
        alert.serialize_field("severity", self.severity().name())?;
        alert.serialize_field("incident", &self.incident.map(incident))?;
        alert.serialize_field("model", self.model)?;
        alert.serialize_field("sensors", self.sensors)?;
        alert.serialize_field("other_share", &self.other_share)?;
        alert.serialize_field("summary", &self.summary())?;
        alert.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::record::PartitionId;

    const SENSORS: &[Sensor<'static>] = &[
        Sensor { name: "flow", observed: Some(1.2), expected: 3.4, share: 0.62, imputed: false },
        Sensor { name: "pressure", observed: Some(9.1), expected: 7.7, share: 0.2, imputed: false },
        Sensor { name: "heat", observed: None, expected: 40.5, share: 0.0, imputed: true },
    ];

    fn alert() -> Alert<'static> {
        Alert {
            topic: "sensors",
            position: Position { partition: PartitionId(3), offset: Offset(1289) },
            time: EventTime(1_795_489_200_000),
            series: "pump-3",
            score: 2.31,
            record_score: 4.5,
            incident: Some(Offset(1280)),
            model: "9f2c1a00ffee1234",
            sensors: SENSORS,
            other_share: 0.18,
        }
    }

    fn wire(alert: &Alert<'_>) -> Vec<u8> {
        let mut out = vec![];
        alert.write(&mut out);
        out
    }

    fn validator() -> jsonschema::Validator {
        let schema: Value = serde_json::from_str(include_str!("../../deploy/schema/alert.schema.json")).unwrap();
        jsonschema::meta::validate(&schema).unwrap();
        jsonschema::validator_for(&schema).unwrap()
    }

    #[test]
    fn an_alert_on_the_wire_is_this_json() {
        let expect = concat!(
            r#"{"id":"sensors-3-1289","time":"2026-11-24T03:00:00.000Z","series":"pump-3","topic":"sensors","partition":3,"#,
            r#""offset":1289,"score":2.31,"record_score":4.5,"threshold":1.0,"severity":"severe","incident":"sensors-3-1280","model":"9f2c1a00ffee1234","sensors":["#,
            r#"{"name":"flow","observed":1.2,"expected":3.4,"share":0.62,"imputed":false},"#,
            r#"{"name":"pressure","observed":9.1,"expected":7.7,"share":0.2,"imputed":false},"#,
            r#"{"name":"heat","observed":null,"expected":40.5,"share":0.0,"imputed":true}],"other_share":0.18,"#,
            r#""summary":"pump-3: flow is 1.2 where 3.4 was expected (62 % of the error), then pressure 9.1 instead of 7.7 (20 %)"#,
            r#"; 1 sensor gave no value"}"#,
        );
        assert_eq!(String::from_utf8(wire(&alert())).unwrap(), expect);
    }

    /// It leaves out the further sensors, and nothing else.
    #[test]
    fn the_alert_in_the_readme_is_one() {
        let block = include_str!("../../README.md").split("```json").nth(1).unwrap().split("```").next().unwrap();
        let shown: Value = serde_json::from_str(&block.replace(", ...", "")).unwrap();
        let sensor = |name, observed, expected, share| Sensor {
            name,
            observed: Some(observed),
            expected,
            share,
            imputed: false,
        };
        let sensors = [
            sensor("motor.current", 39.6, 56.01299835310166, 0.784149900887625),
            sensor("valve.position", 65.7, 62.45688987615871, 0.04534670741410382),
        ];
        let alert = Alert {
            topic: "plant",
            position: Position { partition: PartitionId(0), offset: Offset(5723) },
            time: EventTime(1_773_267_900_000),
            series: "pump-5",
            score: 2.188578318440036,
            record_score: 1.670757755084726,
            incident: Some(Offset(5723)),
            model: "cb95fb042243e3a8",
            sensors: &sensors,
            other_share: 0.0,
        };
        assert_eq!(serde_json::from_slice::<Value>(&wire(&alert)).unwrap(), shown);
    }

    #[test]
    fn writing_appends() {
        let mut out = b"before".to_vec();
        alert().write(&mut out);
        assert_eq!(out, [b"before".to_vec(), wire(&alert())].concat());
    }

    #[test]
    fn severity_grows_with_the_score() {
        let names = [1.0, 1.9999, 2.0, 2.9999, 3.0, 1e9].map(|score| Alert { score, ..alert() }.severity().name());
        assert_eq!(names, ["warning", "warning", "severe", "severe", "critical", "critical"]);
        assert_eq!(Severity::NAMES, [Severity::Warning, Severity::Severe, Severity::Critical].map(Severity::name));
    }

    #[test]
    fn alerts_follow_the_published_schema() {
        let many: Vec<Sensor<'_>> = (0..64).map(|_| Sensor { share: 1.0 / 64.0, ..SENSORS[0] }).collect();
        let alerts = [
            alert(),
            Alert { series: "", sensors: &[], other_share: 1.0, ..alert() },
            Alert { series: "a \"quoted\" \u{e9}", score: 1e-3, time: EventTime(-1), ..alert() },
            Alert {
                time: EventTime::MIN,
                sensors: &many,
                score: f64::MAX,
                record_score: 0.0,
                other_share: 0.0,
                ..alert()
            },
            Alert { time: EventTime::MAX, topic: "a-b", sensors: &SENSORS[2..], ..alert() },
        ];
        let validator = validator();
        for alert in &alerts {
            let value: Value = serde_json::from_slice(&wire(alert)).unwrap();
            let errors: Vec<String> = validator.iter_errors(&value).map(|e| e.to_string()).collect();
            assert!(errors.is_empty(), "{errors:?} in {value}");
        }
    }

    #[test]
    fn broken_alerts_do_not_follow_it() {
        let validator = validator();
        let good: Value = serde_json::from_slice(&wire(&alert())).unwrap();
        let fields: Vec<String> = good.as_object().unwrap().keys().cloned().collect();
        assert_eq!(fields.len(), 15);
        for field in &fields {
            let mut value = good.clone();
            value.as_object_mut().unwrap().remove(field);
            assert!(!validator.is_valid(&value), "valid without {field}");
            value[field] = json!([null]);
            assert!(!validator.is_valid(&value), "valid with a list as {field}");
        }
        let breaks = [
            ("/time", json!("2026-11-24 03:00:00")),
            ("/model", json!("9F2C1A00FFEE1234")),
            ("/incident", json!("pump-3")),
            ("/severity", json!("fatal")),
            ("/threshold", json!(2)),
            ("/score", json!(null)),
            ("/record_score", json!(-0.5)),
            ("/offset", json!(1.5)),
            ("/sensors/0/share", json!(1.1)),
            ("/sensors/0/observed", json!(null)),
            ("/sensors/0/extra", json!(1)),
            ("/sensors/2/observed", json!(1.0)),
            ("/sensors/2/share", json!(0.1)),
            ("/extra", json!(1)),
        ];
        for (at, wrong) in breaks {
            let mut value = good.clone();
            let (parent, field) = at.rsplit_once('/').unwrap();
            value.pointer_mut(parent).unwrap()[field] = wrong;
            assert!(!validator.is_valid(&value), "valid with a wrong {at}");
        }
    }
}
