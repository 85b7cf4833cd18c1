job "prometheus" {
  datacenters = ["dc1"]
  type        = "service"

  group "monitoring" {
    count = 1

    network {
      port "prometheus_ui" {
        static = 9090
      }
    }

    restart {
      attempts = 2
      interval = "30m"
      delay    = "15s"
      mode     = "fail"
    }

    task "prometheus" {
      template {
        change_mode = "noop"
        destination = "local/prometheus.yml"
        data        = <<EOH
global:
  scrape_interval: 30s
scrape_configs:
  - job_name: nomad_metrics
    static_configs:
{{ range nomadService "exporter" }}
      - targets: ['{{ .Address }}:{{ .Port }}']
{{ end }}
EOH
      }

      driver = "docker"

      config {
        image   = "prom/prometheus:v2.53.0"
        volumes = ["local/prometheus.yml:/etc/prometheus/prometheus.yml"]
        ports   = ["prometheus_ui"]
      }

      service {
        name = "prometheus"
        tags = ["urlprefix-/"]
        port = "prometheus_ui"

        check {
          name     = "prometheus_ui port alive"
          type     = "http"
          path     = "/-/healthy"
          interval = "10s"
          timeout  = "2s"
        }
      }
    }
  }
}
