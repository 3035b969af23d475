//! Jobs, and the CronJobs that make them.
//!
//! Refuses: when a CronJob runs next; that needs its schedule read.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ObjectMeta;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::report::{Report, Series, created_s, seconds, truth};
use super::{Condition, Kind, Listed, Observed, listed, owners, text};

/// Why a Job failed; kube-state-metrics knows these.
const FAILURES: [&str; 3] = ["BackoffLimitExceeded", "DeadlineExceeded", "Evicted"];

/// A Job.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Job {
    metadata: ObjectMeta,
    spec: JobSpec,
    status: JobStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct JobSpec {
    parallelism: Option<i32>,
    completions: Option<i32>,
    active_deadline_seconds: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct JobStatus {
    active: i32,
    succeeded: i32,
    failed: i32,
    start_time: Option<Time>,
    completion_time: Option<Time>,
    conditions: Vec<Condition>,
}

listed!(Job, Job, "batch", "v1", "Job", NamespaceResourceScope);

impl Listed for Job {
    const KIND: Kind = Kind::Job;
}

impl Observed for Job {
    fn report(&self, report: &mut Report) {
        let Self { metadata, spec, status } = self;
        let (namespace, name) = (text(&metadata.namespace), text(&metadata.name));
        let mut series = report.object(
            metadata,
            &[("namespace", namespace), ("job_name", name)],
            &[
                ("k8s.namespace.name", namespace),
                ("k8s.job.name", name),
                ("k8s.job.uid", text(&metadata.uid)),
            ],
        );
        series.gauge("kube_job_info", "A Job.", &[], 1.0);
        owners(&mut series, "kube_job_owner", "Whose a Job is.", metadata);
        let (width, wanted) = (spec.parallelism.map(f64::from), spec.completions.map(f64::from));
        let mut gauge = |name, help, value: Option<f64>| series.gauge(name, help, &[], value);
        gauge("kube_job_created", "When a Job was made.", created_s(metadata));
        gauge("kube_job_spec_parallelism", "Pods that may run at once.", width);
        gauge("kube_job_spec_completions", "Pods that have to succeed.", wanted);
        gauge(
            "kube_job_spec_active_deadline_seconds",
            "How long a Job may run.",
            spec.active_deadline_seconds.map(|seconds| seconds as f64),
        );
        gauge("kube_job_status_active", "Pods that run.", Some(status.active.into()));
        gauge("kube_job_status_succeeded", "Pods that succeeded.", Some(status.succeeded.into()));
        gauge("kube_job_status_start_time", "When a Job was begun.", status.start_time.as_ref().map(seconds));
        gauge(
            "kube_job_status_completion_time",
            "When a Job was done.",
            status.completion_time.as_ref().map(seconds),
        );
        self.ends(&mut series);
        for (text, value) in [
            (
                ["k8s.job.pod.active", "{pod}", "Pods of the Job that run or wait to."],
                Some(f64::from(status.active)),
            ),
            (["k8s.job.pod.failed", "{pod}", "Pods of the Job that failed."], Some(status.failed.into())),
            (
                ["k8s.job.pod.successful", "{pod}", "Pods of the Job that succeeded."],
                Some(status.succeeded.into()),
            ),
            (["k8s.job.pod.desired_successful", "{pod}", "Pods of the Job that have to succeed."], wanted),
            (["k8s.job.pod.max_parallel", "{pod}", "Pods of the Job that may run at once."], width),
        ] {
            series.sum(text, &[], value);
        }
    }
}

impl Job {
    fn ends(&self, series: &mut Series<'_>) {
        let Self { status, .. } = self;
        let (name, help) = ("kube_job_status_failed", "Pods that failed, and why.");
        let failure = status.conditions.iter().find(|condition| condition.kind == "Failed");
        let known = failure.filter(|failure| FAILURES.contains(&failure.reason.as_str()));
        if let Some(failure) = failure.filter(|_| status.failed > 0) {
            series.states(name, help, "reason", &FAILURES, |reason| reason == failure.reason);
        }
        if status.failed == 0 || known.is_none() {
            series.gauge(name, help, &[], f64::from(status.failed));
        }
        for condition in &status.conditions {
            let (name, help) = match condition.kind.as_str() {
                "Complete" => ("kube_job_complete", "Whether a Job is done."),
                "Failed" => ("kube_job_failed", "Whether a Job has failed."),
                _ => continue,
            };
            series.condition(name, help, "condition", &[], &condition.status);
        }
    }
}

/// A CronJob.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CronJob {
    metadata: ObjectMeta,
    spec: CronJobSpec,
    status: CronJobStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct CronJobSpec {
    schedule: String,
    concurrency_policy: String,
    time_zone: Option<String>,
    suspend: bool,
    starting_deadline_seconds: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct CronJobStatus {
    active: Vec<IgnoredAny>,
    last_schedule_time: Option<Time>,
    last_successful_time: Option<Time>,
}

listed!(CronJob, CronJob, "batch", "v1", "CronJob", NamespaceResourceScope);

impl Listed for CronJob {
    const KIND: Kind = Kind::CronJob;
}

impl Observed for CronJob {
    fn report(&self, report: &mut Report) {
        let Self { metadata, spec, status } = self;
        let (namespace, name) = (text(&metadata.namespace), text(&metadata.name));
        let mut series = report.object(
            metadata,
            &[("namespace", namespace), ("cronjob", name)],
            &[
                ("k8s.namespace.name", namespace),
                ("k8s.cronjob.name", name),
                ("k8s.cronjob.uid", text(&metadata.uid)),
            ],
        );
        let info = [
            ("schedule", spec.schedule.as_str()),
            ("concurrency_policy", &spec.concurrency_policy),
            ("timezone", text(&spec.time_zone)),
        ];
        series.gauge("kube_cronjob_info", "A CronJob.", &info, 1.0);
        let active = status.active.len() as f64;
        let mut gauge = |name, help, value: Option<f64>| series.gauge(name, help, &[], value);
        gauge("kube_cronjob_created", "When a CronJob was made.", created_s(metadata));
        gauge("kube_cronjob_spec_suspend", "Whether no Jobs are made.", Some(truth(spec.suspend)));
        gauge(
            "kube_cronjob_spec_starting_deadline_seconds",
            "How late a Job may be made.",
            spec.starting_deadline_seconds.map(|seconds| seconds as f64),
        );
        gauge("kube_cronjob_status_active", "Jobs that run.", Some(active));
        gauge(
            "kube_cronjob_status_last_schedule_time",
            "When a Job was last made.",
            status.last_schedule_time.as_ref().map(seconds),
        );
        gauge(
            "kube_cronjob_status_last_successful_time",
            "When a Job last succeeded.",
            status.last_successful_time.as_ref().map(seconds),
        );
        series.sum(["k8s.cronjob.job.active", "{job}", "Jobs of the CronJob that run."], &[], active);
    }
}
