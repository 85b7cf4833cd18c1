# The shortest useful job: one container on every node of the pool "default".
job "hello" {
  type = "system"

  group "hello" {
    task "hello" {
      driver = "docker"

      config {
        image = "hello:1"
      }
    }
  }
}
