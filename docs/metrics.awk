# An OpenMetrics page -> tables of its families: name, type, unit, labels, help. Series and values are left out.
function group(name) {
  if (name ~ /^kube_/) return 8
  if (name ~ /^(container_pressure_(cpu|io|memory)|container_(cpu_(user|system|usage|cfs)|fs_|network_(receive|transmit)|oom_events|processes|sockets|spec|start|threads|ulimits|last_seen)|container_memory_(rss|cache|swap|mapped_file|failcnt|failures|kernel_usage|max_usage_bytes|total_)|machine_)/ \
      && name !~ /^container_(cpu_usage$|memory_(rss|cache|swap)_bytes)/) return 4
  if (name ~ /^node_/) return 5
  if (name ~ /^(container|k8s)_/) return 2
  if (name ~ /^system_/) return 3
  if (name ~ /^(kansoku|process|target)/) return 6
  if (name ~ /^(http|db|dns|messaging|traces)_/) return 7
  return 1
}
function row(name) {
  labels = ""
  count = split(order[name], parts, " ")
  for (part = 1; part <= count; part++)
    if (parts[part] !~ /^(le|namespace|pod|container|image|container_id|service_name|unit|id|name)$/ || group(name) == 5 || group(name) == 8)
      labels = labels (labels == "" ? "" : ", ") "`" parts[part] "`"
  printf "| `%s` | %s | %s | %s | %s |\n", name (type[name] == "counter" ? "_total" : ""), type[name], unit[name], labels, help[name]
}
/^# TYPE/ { names[++total] = $3; type[$3] = $4; current = $3; next }
/^# UNIT/ { unit[$3] = $4; next }
/^# HELP/ { text = substr($0, length("# HELP " $3) + 2); gsub(/\\"/, "\"", text); gsub(/\|/, "\\|", text); help[$3] = text; next }
/^# EOF/  { next }
{
  line = $0
  # On all series of kube-state-metrics, so that no scrape puts another in its place.
  gsub(/node="",?/, "", line)
  if (!sub(/^[^{ ]*\{/, "", line)) next
  # Values may hold anything but a bare quote: they go first.
  gsub(/\\"/, "", line); gsub(/"[^"]*"/, "", line); sub(/\}.*/, "", line)
  count = split(line, parts, ",")
  for (part = 1; part <= count; part++) {
    label = parts[part]; sub(/=.*/, "", label)
    if (label != "" && !((current, label) in seen)) { seen[current, label]; order[current] = order[current] " " label }
  }
}
END {
  titles[1] = "I/O, scheduling, memory, TCP"; titles[2] = "Containers and services, in OpenTelemetry's words"
  titles[3] = "Node, in OpenTelemetry's words"; titles[4] = "Containers, in cAdvisor's words (`prometheus.cadvisor`)"
  titles[5] = "Node, in node_exporter's words (`prometheus.node_exporter`)"; titles[6] = "The agent, and deaths"
  titles[7] = "Requests, and who calls whom (`trace.enabled`)"
  titles[8] = "The cluster, in kube-state-metrics' words (`kubernetes.cluster`)"
  for (number = 1; number <= 8; number++) {
    printf "\n## %s\n\n| name | type | unit | labels | help |\n| --- | --- | --- | --- | --- |\n", titles[number]
    for (at = 1; at <= total; at++) if (group(names[at]) == number) row(names[at])
  }
}
