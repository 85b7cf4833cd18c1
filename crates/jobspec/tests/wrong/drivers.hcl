job "web" {
  type = "system"
  group "web" {
    task "server" {
      driver = "java"
      config {
        image = "web:1"
      }
    }
    task "b" {
      config {
      }
    }
    task "c" {
      driver = "dockr"
    }
    task "d" {
      driver = "podman"
      config {
        image = "web:1"
      }
    }
  }
}
