job "node-exporter" {
  datacenters = ["dc1"]
  type        = "system"

  group "exporter" {
    network {
      port "metrics" {
        static = 9100
      }
    }

    task "node-exporter" {
      driver = "raw_exec"

      artifact {
        source      = "https://example.org/node_exporter-1.8.1.linux-arm64.tar.gz"
        destination = "local/"
      }

      config {
        command = "local/node_exporter-1.8.1.linux-arm64/node_exporter"
        args    = ["--web.listen-address=:${NOMAD_PORT_metrics}"]
      }
    }
  }
}
