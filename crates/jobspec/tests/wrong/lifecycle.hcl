job "web" {
  type = "system"
  group "a" {
    task "one" {
      driver = "docker"
      leader = true
      lifecycle {
        hook    = "poststop"
        sidecar = true
      }
      config {
        image = "web:1"
      }
    }
    task "two" {
      driver = "docker"
      lifecycle {
        hook = "prestrat"
      }
      config {
        image = "web:1"
      }
    }
  }
  group "b" {
    task "one" {
      driver = "docker"
      lifecycle {
        hook = "prestart"
      }
      config {
        image = "web:1"
      }
    }
  }
  group "c" {
    task "one" {
      driver = "docker"
      leader = true
      config {
        image = "web:1"
      }
    }
    task "two" {
      driver = "docker"
      leader = true
      lifecycle {
      }
      config {
        image = "web:1"
      }
    }
  }
}
