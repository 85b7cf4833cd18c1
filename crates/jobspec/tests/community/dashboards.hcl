job "grafana" {
  datacenters = ["dc1"]

  group "grafana" {
    count = 1

    network {
      port "grafana_ui" {}
    }

    task "grafana" {
      driver = "docker"

      vault {
        policies = ["grafana"]
      }

      config {
        image = "grafana/grafana:11.1.0"
        ports = ["grafana_ui"]
      }

      env {
        GF_LOG_LEVEL      = "warn"
        GF_SERVER_HTTP_PORT = "${NOMAD_PORT_grafana_ui}"
      }

      template {
        data        = <<EOF
{{ with secret "kv/data/grafana" }}
GF_SECURITY_ADMIN_PASSWORD={{ .Data.data.password }}
{{ end }}
EOF
        destination = "${NOMAD_SECRETS_DIR}/grafana.env"
        env         = true
      }
    }
  }
}
