job "web" {
  type = "system"
  group "web" {
    network {
      port "https" {
        to = 443
      }
    }
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
        ports = ["http", "htpps", "metrics"]
      }
    }
  }
}
