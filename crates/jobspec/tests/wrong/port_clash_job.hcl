job "web" {
  type = "system"
  group "web" {
    network {
      port "http" {
        static = 8080
      }
    }
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
  group "api" {
    network {
      port "http" {
        static = 8080
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
