job "web" {
  priority = 300
  group "web" {
    count = 10001
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
  group "b" {
    count = "many"
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
  group "c" {
    count = -1
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
  group "d" {
    count = 1.5
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
}
