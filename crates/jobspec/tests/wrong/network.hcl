job "web" {
  type = "system"
  group "web" {
    network {
      mode = "cni/x"
      dns {
      }
    }
    network {
    }
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
  group "b" {
    network {
      mode = "none"
      port "x" {}
    }
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
}
