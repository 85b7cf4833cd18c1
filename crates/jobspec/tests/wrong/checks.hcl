job "web" {
  type = "system"
  group "web" {
    network {
      port "http" {}
    }
    service {
      name = "web"
      port = "htpp"
      check {
        type     = "http"
        path     = "health"
        method   = "get"
        protocol = "https"
        interval = "500ms"
        timeout  = "0s"
        header = {
          "Host" = ["x"]
          "A B"  = 1
          "C"    = "${node.unique.name}"
          "D"    = {}
        }
      }
    }
    service {
      name = "${NOMAD_JOB_NAME}-api"
      check {
        name     = "web-http"
        type     = "tcp"
        interval = "10s"
        timeout  = "2s"
        path     = "/"
      }
      check {
        type     = "script"
        command  = "/bin/check"
        interval = "10s"
        timeout  = "2s"
      }
      check {
        type     = "script"
        task     = "servr"
        interval = "10s"
        timeout  = "2s"
      }
      check {
        type = "grpc"
        grpc_service = "x"
      }
      check {
        port = 8080
        type = "http"
        path = "/${NOMAD_ALLOC_ID}"
        interval = "10s"
        timeout  = "2s"
      }
      connect {
        sidecar_service {}
      }
    }
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
}
