job "web" {
  type = "system"
  group "a" {
    disconnect {
      lost_after           = "6h"
      stop_on_client_after = "1h"
      reconcile            = "best_scor"
    }
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
  group "b" {
    disconnect {
      replace = true
    }
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
  group "c" {
    stop_after_client_disconnect = "1h"
    max_client_disconnect        = "12h"
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
}
