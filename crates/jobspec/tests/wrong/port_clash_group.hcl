job "web" {
  type = "system"
  group "web" {
    network {
      port "a" {
        static = 80
      }
      port "b" {
        static = 80
      }
      port "c" {
        static = 0
      }
      port "d" {
        static = 70000
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
