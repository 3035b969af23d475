{{- define "kansoku.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "kansoku.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "kansoku.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "kansoku.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "kansoku.selectorLabels" -}}
app.kubernetes.io/name: {{ include "kansoku.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "kansoku.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "kansoku.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: node-agent
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "kansoku.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "kansoku.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "kansoku.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "kansoku.port" -}}
{{- regexFind "[0-9]+$" .Values.prometheus.listen }}
{{- end }}

{{/* The agent's file: what has a value of its own, and .Values.config over it. */}}
{{- define "kansoku.config" -}}
{{- $prometheus := dict "listen" .Values.prometheus.listen }}
{{- if .Values.prometheus.tlsSecret }}
{{- $_ := set $prometheus "certificate" "/etc/kansoku-tls/tls.crt" }}
{{- $_ := set $prometheus "key" "/etc/kansoku-tls/tls.key" }}
{{- if .Values.prometheus.clientCertificates }}
{{- $_ := set $prometheus "client_certificate" "/etc/kansoku-tls/ca.crt" }}
{{- end }}
{{- else if .Values.prometheus.clientCertificates }}
{{- fail "prometheus.clientCertificates needs prometheus.tlsSecret" }}
{{- end }}
{{- if .Values.prometheus.tokenSecret.name }}
{{- $_ := set $prometheus "bearer_token_file" "/etc/kansoku-token/token" }}
{{- end }}
{{- $config := dict "prometheus" $prometheus }}
{{- if .Values.otlp.endpoint }}
{{- $_ := set $config "otlp" (dict "endpoint" .Values.otlp.endpoint "protocol" .Values.otlp.protocol "compression" .Values.otlp.compression) }}
{{- end }}
{{- if or .Values.cluster.objects .Values.cluster.controlPlane }}
{{- $_ := set $config "kubernetes" (dict "cluster" .Values.cluster.objects "lease" (include "kansoku.fullname" .)) }}
{{- end }}
{{- if or .Values.cluster.controlPlane .Values.cluster.kubelet }}
{{- $_ := set $config "scrape" (dict "control_plane" .Values.cluster.controlPlane "cluster_verify" .Values.cluster.verifyCertificates) }}
{{- end }}
{{- if and (eq (dig "kubernetes" "api" "auto" .Values.config) "off") (or .Values.cluster.objects .Values.cluster.controlPlane .Values.cluster.kubelet) }}
{{- fail "cluster needs the API server: config.kubernetes.api is off" }}
{{- end }}
{{- if or (dig "kubernetes" "cluster" false .Values.config) (dig "scrape" "control_plane" false .Values.config) }}
{{- fail "set cluster.objects and cluster.controlPlane, and not their keys in config: the agents' rights follow them" }}
{{- end }}
{{- if dig "prometheus" "listen" "" .Values.config }}
{{- fail "set prometheus.listen and not config.prometheus.listen: probes and ports follow it" }}
{{- end }}
{{- toYaml (mergeOverwrite $config (deepCopy .Values.config)) }}
{{- end }}

{{/* What the kubelet asks: a list of the root and the path. It has no client certificate. */}}
{{- define "kansoku.probe" -}}
{{- $path := index . 1 }}
{{- with index . 0 }}
{{- if .Values.prometheus.clientCertificates }}
tcpSocket:
  port: metrics
{{- else }}
httpGet:
  path: {{ $path }}
  port: metrics
  scheme: {{ ternary "HTTPS" "HTTP" (not (empty .Values.prometheus.tlsSecret)) }}
{{- end }}
{{- end }}
{{- end }}
