job "web" {
  type = "system"
  group "web" {
    network {
      port "http" {}
      port "http" {}
      port "a-b" {}
      port "a_b" {}
    }
    task "x" {
      driver = "docker"
      config {
        image = "a:1"
      }
    }
    task "x" {
      driver = "docker"
      config {
        image = "a:1"
      }
    }
  }
  group "web" {
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
}
