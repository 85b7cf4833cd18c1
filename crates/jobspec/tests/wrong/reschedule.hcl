job "web" {
  reschedule {
    delay = "1s"
    delay_function = "linear"
  }
  group "a" {
    reschedule {
      attempts  = 3
      unlimited = true
      max_delay = "400000h"
    }
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
  group "b" {
    reschedule {
      attempts  = 3
      delay     = "10m"
      max_delay = "1m"
    }
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
}
