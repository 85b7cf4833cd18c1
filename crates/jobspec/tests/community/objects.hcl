variable "tag" {
  type    = string
  default = "RELEASE.2024-06-13"
}

job "minio" {
  datacenters = ["dc1"]

  update {
    max_parallel      = 1
    canary            = 1
    min_healthy_time  = "30s"
    healthy_deadline  = "5m"
    progress_deadline = "10m"
    auto_revert       = true
    auto_promote      = true
  }

  group "minio" {
    network {
      port "api" { to = 9000 }
      port "console" { to = 9001 }
    }

    task "minio" {
      driver = "docker"
      config {
        image = "minio/minio:${var.tag}"
        args  = ["server", "/data", "--console-address", ":9001"]
        ports = ["api", "console"]
        volumes = ["/mnt/objects:/data"]
        logging {
          type = "json-file"
        }
      }

      service {
        name = "minio"
        port = "api"
        check {
          type     = "http"
          path     = "/minio/health/live"
          interval = "20s"
          timeout  = "4s"
        }
      }
    }
  }
}
