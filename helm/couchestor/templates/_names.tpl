{{- define "couchestor.name" -}}
{{- if contains "couchestor" .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-couchestor" .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "couchestor.operator" -}}
{{ include "couchestor.name" . }}-operator
{{- end -}}

{{- define "couchestor.node" -}}
{{ include "couchestor.name" . }}-node
{{- end -}}

{{/* Names outside of the release's namespace, where another release may have the same. */}}
{{- define "couchestor.operator.elsewhere" -}}
{{ .Release.Namespace }}-{{ include "couchestor.operator" . }}
{{- end -}}

{{/* Takes: (list . "component"). */}}
{{- define "couchestor.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Takes: (list . "component"). */}}
{{- define "couchestor.labels" -}}
{{- $root := index . 0 -}}
{{ include "couchestor.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Takes: (list . image). */}}
{{- define "couchestor.image" -}}
{{- $image := index . 1 -}}
image: {{ printf "%s:%s" $image.repository ($image.tag | default (index . 0).Chart.AppVersion) | quote }}
imagePullPolicy: {{ $image.pullPolicy }}
{{- end -}}

{{/* Text as a container's argument is to have it; numbers as JSON writes them: 3600, not 3.6e+03. */}}
{{- define "couchestor.text" -}}
{{- if kindIs "string" . -}}{{ . | replace "$(" "$$(" }}{{- else -}}{{ toJson . }}{{- end -}}
{{- end -}}

{{/* The port of a URL: of the kind that NetworkPolicies want. */}}
{{- define "couchestor.port" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- $port | default (eq $url.scheme "https" | ternary "443" "80") -}}
{{- end -}}

{{- define "couchestor.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
